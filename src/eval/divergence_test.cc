#include "eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ctime>
#include <random>

namespace kvant {
namespace {

std::vector<float> LogsOf(std::initializer_list<double> probabilities, double shift) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

std::vector<float> Gaussian(size_t size, unsigned seed, float sigma) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> values(size);
  for (float& v : values) v = normal(random);
  return values;
}

TEST(ArgMaxTest, TakesTheFirstOfEquals) {
  EXPECT_EQ(ArgMax(std::vector<float>{1, 3, 2, 3}), 1);
  EXPECT_EQ(ArgMax(std::vector<float>{-5}), 0);
}

TEST(LogSumExpTest, SurvivesLargeLogits) {
  EXPECT_NEAR(LogSumExp(std::vector<float>{1000, 1000}), 1000 + std::log(2.0), 1e-9);
  EXPECT_NEAR(LogSumExp(std::vector<float>{-1000, -1000}), -1000 + std::log(2.0), 1e-9);
}

TEST(DivergenceTest, MatchesTheHandComputedKl) {
  Divergence divergence;
  // A constant added to all logits of one side changes nothing.
  divergence.Add(LogsOf({0.5, 0.25, 0.25}, 3.0), LogsOf({0.25, 0.25, 0.5}, -7.0), 0);
  const DivergenceSummary s = divergence.Summarize();
  EXPECT_EQ(s.positions, 1);
  EXPECT_NEAR(s.kl, 0.5 * std::log(2.0) + 0.25 * std::log(0.5), 1e-6);
  EXPECT_EQ(s.kl_stderr, 0.0);
  EXPECT_EQ(s.top1, 0.0);
  EXPECT_NEAR(s.ppl_reference, 2.0, 1e-5);
  EXPECT_NEAR(s.ppl, 4.0, 1e-5);
}

TEST(DivergenceTest, IsNotSymmetric) {
  const auto p = LogsOf({0.9, 0.1}, 0), q = LogsOf({0.5, 0.5}, 0);
  Divergence forward, backward;
  forward.Add(p, q, 0);
  backward.Add(q, p, 0);
  EXPECT_NEAR(forward.Summarize().kl, 0.9 * std::log(1.8) + 0.1 * std::log(0.2), 1e-6);
  EXPECT_NEAR(backward.Summarize().kl, 0.5 * std::log(1 / 1.8) + 0.5 * std::log(5.0), 1e-6);
}

TEST(DivergenceTest, EqualLogitsGiveExactlyZero) {
  Divergence divergence;
  for (unsigned seed = 0; seed < 20; ++seed) {
    const auto logits = Gaussian(8192, seed, 4.0f);
    divergence.Add(logits, logits, 7);
  }
  const DivergenceSummary s = divergence.Summarize();
  EXPECT_LT(s.kl, 1e-13);
  EXPECT_EQ(s.top1, 1.0);
  EXPECT_EQ(s.ppl, s.ppl_reference);
}

TEST(DivergenceTest, ResolvesSmallDifferences) {
  // A perturbation e of the logits gives KL = Var_p(e) / 2 to second order.
  const auto logits = Gaussian(4096, 1, 1.0f), noise = Gaussian(4096, 2, 1e-3f);
  auto moved = logits;
  for (size_t i = 0; i < moved.size(); ++i) moved[i] += noise[i];
  const double lse = LogSumExp(logits);
  double mean = 0, square = 0;
  for (size_t i = 0; i < moved.size(); ++i) {
    const double p = std::exp(logits[i] - lse), e = static_cast<double>(moved[i]) - logits[i];
    mean += p * e;
    square += p * e * e;
  }
  Divergence divergence;
  divergence.Add(logits, moved, 0);
  const double expected = (square - mean * mean) / 2;
  EXPECT_NEAR(divergence.Summarize().kl / expected, 1.0, 1e-3);
}

TEST(DivergenceTest, SummarisesOverPositions) {
  const auto uniform = LogsOf({0.5, 0.5}, 0), skewed = LogsOf({0.8, 0.2}, 0);
  const double kl = 0.5 * std::log(0.5 / 0.8) + 0.5 * std::log(0.5 / 0.2);
  Divergence divergence;
  for (int i = 0; i < 99; ++i) divergence.Add(uniform, uniform, 0);
  divergence.Add(uniform, skewed, 0);
  const DivergenceSummary s = divergence.Summarize();
  EXPECT_NEAR(s.kl, kl / 100, 1e-9);
  // One of 100 differs: variance kl^2 * 0.01 * 0.99 * 100/99.
  EXPECT_NEAR(s.kl_stderr, kl / 100, 1e-9);
  EXPECT_NEAR(s.kl_p99, 0.0, 1e-12);
  divergence.Add(uniform, skewed, 0);
  EXPECT_NEAR(divergence.Summarize().kl_p99, kl, 1e-7);
}

TEST(DivergenceTest, FollowsTheText) {
  const auto uniform = LogsOf({0.5, 0.5}, 0), skewed = LogsOf({0.8, 0.2}, 0);
  Divergence divergence;
  for (int i = 0; i < 3 * kDivergenceWindow; ++i) {
    divergence.Add(uniform, i / kDivergenceWindow == 1 ? skewed : uniform, 0);
  }
  const DivergenceSummary s = divergence.Summarize();
  const double kl = 0.5 * std::log(0.5 / 0.8) + 0.5 * std::log(0.5 / 0.2);
  ASSERT_EQ(s.kl_by_window.size(), 3u);
  EXPECT_NEAR(s.kl_by_window[0], 0.0, 1e-12);
  EXPECT_NEAR(s.kl_by_window[1], kl, 1e-7);
  EXPECT_NEAR(s.kl_by_window[2], 0.0, 1e-12);
  EXPECT_NEAR(s.kl_interval.low, 0.0, 1e-12);  // three draws of three windows may all miss the one, or all hit it
  EXPECT_NEAR(s.kl_interval.high, kl, 1e-7);
}

TEST(DivergenceTest, LargeVocabulariesAreFastEnough) {
  const auto a = Gaussian(150'000, 1, 3.0f), b = Gaussian(150'000, 2, 3.0f);
  Divergence divergence;
  const std::clock_t start = std::clock();
  for (int i = 0; i < 10; ++i) divergence.Add(a, b, 0);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  // About 4 ms a position at -O2, in time of the processor; the bound leaves room for sanitizers.
  EXPECT_LT(seconds / 10, 0.2);
}

}  // namespace
}  // namespace kvant
