#include "tune/choice_program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace kvant {
namespace {

/// Least cost of all picks within the limit, by trying all; infinity when there are none.
double BruteForce(const ChoiceProgram& program, size_t group = 0, double cost = 0, double weight = 0) {
  if (weight > program.max_weight) return std::numeric_limits<double>::infinity();
  if (group == program.groups.size()) return cost;
  double best = std::numeric_limits<double>::infinity();
  for (const Choice& c : program.groups[group]) {
    best = std::min(best, BruteForce(program, group + 1, cost + c.cost, weight + c.weight));
  }
  return best;
}

double Uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

// Costs fall with the weight as those of codecs do, with noise; weights are whole bytes.
ChoiceProgram RandomProgram(std::mt19937_64& random) {
  ChoiceProgram program;
  const size_t groups = 1 + random() % 6;
  double least = 0, most = 0;
  for (size_t i = 0; i < groups; ++i) {
    const double sensitivity = std::exp(3 * Uniform(random));
    std::vector<Choice>& group = program.groups.emplace_back();
    double lightest = std::numeric_limits<double>::infinity(), heaviest = 0;
    for (size_t options = 1 + random() % 5; options > 0; --options) {
      const double bits = 1 + 8 * Uniform(random);
      group.push_back({.cost = 1e-3 * sensitivity * std::pow(4.0, -bits) * (0.5 + Uniform(random)),
                       .weight = std::round(bits * 1e6)});
      lightest = std::min(lightest, group.back().weight);
      heaviest = std::max(heaviest, group.back().weight);
    }
    least += lightest;
    most += heaviest;
  }
  program.max_weight = std::round(least + (most - least) * Uniform(random));
  return program;
}

TEST(ChoiceProgramTest, EqualsBruteForce) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    const ChoiceProgram program = RandomProgram(random);
    const Result<ChoiceSolution> solution = Solve(program);
    ASSERT_TRUE(solution.ok()) << i << ": " << solution.status().message();
    const double best = BruteForce(program);
    EXPECT_TRUE(solution->is_optimal);
    EXPECT_LE(solution->weight, program.max_weight) << i;
    EXPECT_NEAR(solution->cost, best, 1e-6 * best) << i;
  }
}

TEST(ChoiceProgramTest, TakesTheExactBudget) {
  const std::vector<Choice> group = {{.cost = 1, .weight = 100}, {.cost = 0, .weight = 101}};
  const Result<ChoiceSolution> all = Solve({.groups = {group, group}, .max_weight = 202});
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->cost, 0);
  const Result<ChoiceSolution> one = Solve({.groups = {group, group}, .max_weight = 201.999});
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(one->cost, 1);
  EXPECT_EQ(one->weight, 201);
}

TEST(ChoiceProgramTest, NamesTheLeastWeightWhenNothingFits) {
  const Result<ChoiceSolution> none = Solve({.groups = {{{1, 5}, {0, 7}}, {{1, 6}}}, .max_weight = 10.5});
  EXPECT_EQ(none.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(none.status().message(), testing::HasSubstr("takes 11"));
  EXPECT_EQ(LeastWeight({{{1, 5}, {0, 7}}, {{1, 6}}}), 11);
  EXPECT_TRUE(Solve({.groups = {{{1, 5}, {0, 7}}, {{1, 6}}}, .max_weight = 11}).ok());
}

TEST(ChoiceProgramTest, SolvesTheSizeOfALargeModel) {
  std::mt19937_64 random(2);
  ChoiceProgram program;
  for (int group = 0; group < 160; ++group) {
    const double sensitivity = std::exp(2 * Uniform(random));
    std::vector<Choice>& options = program.groups.emplace_back();
    for (int eighths = 8; eighths < 40; ++eighths) {
      options.push_back({.cost = sensitivity * std::pow(4.0, -eighths / 8.0), .weight = eighths * 12345.0});
    }
  }
  program.max_weight = 160 * 20 * 12345.0;
  const Result<ChoiceSolution> solution = Solve(program);
  ASSERT_TRUE(solution.ok()) << solution.status().message();
  EXPECT_LE(solution->weight, program.max_weight);
  EXPECT_GT(solution->weight, 0.999 * program.max_weight);
}

}  // namespace
}  // namespace kvant
