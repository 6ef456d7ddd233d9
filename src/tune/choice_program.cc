#include "tune/choice_program.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "tune/choice_solver.h"

namespace kvant {
namespace {

using Groups = std::vector<std::vector<Choice>>;

// Weights within the solver's tolerance of the limit may still exceed it; then the limit is lowered by this share.
constexpr double kTighten = 1e-6;
constexpr int kMaxTries = 20;

const Choice& Lightest(const std::vector<Choice>& group) {
  return *std::ranges::min_element(group, {}, [](const Choice& c) { return std::pair(c.weight, c.cost); });
}

// Options of a group that no other beats in both cost and weight, lightest first.
std::vector<Column> Efficient(const Groups& groups, int group) {
  const std::vector<Choice>& options = groups[static_cast<size_t>(group)];
  std::vector<int> order(options.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int i) {
    const Choice& c = options[static_cast<size_t>(i)];
    return std::tuple(c.weight, c.cost, i);
  };
  std::ranges::sort(order, {}, key);
  std::vector<Column> columns;
  for (const int i : order) {
    const Choice& c = options[static_cast<size_t>(i)];
    if (columns.empty() || c.cost < columns.back().cost) columns.push_back({group, i, c.cost, c.weight});
  }
  return columns;
}

std::vector<Column> AllColumns(const Groups& groups) {
  std::vector<Column> columns;
  for (int group = 0; group < static_cast<int>(groups.size()); ++group) {
    const std::vector<Column> own = Efficient(groups, group);
    columns.insert(columns.end(), own.begin(), own.end());
  }
  return columns;
}

ChoiceSolution Evaluated(const Groups& groups, std::vector<int> picks, bool is_optimal) {
  ChoiceSolution solution{.picks = std::move(picks), .is_optimal = is_optimal};
  for (size_t i = 0; i < groups.size(); ++i) {
    const Choice& c = groups[i][static_cast<size_t>(solution.picks[i])];
    solution.cost += c.cost;
    solution.weight += c.weight;
  }
  return solution;
}

}  // namespace

double LeastWeight(const Groups& groups) {
  double sum = 0;
  for (const std::vector<Choice>& group : groups) sum += Lightest(group).weight;
  return sum;
}

Result<ChoiceSolution> Solve(const ChoiceProgram& program) {
  for (const auto& group : program.groups) KVANT_CHECK(!group.empty());
  const double least = LeastWeight(program.groups);
  if (least > program.max_weight) {
    return Status::InvalidArgument(
        StrFormat("no choice fits in %.17g; the smallest takes %.17g", program.max_weight, least));
  }
  const std::vector<Column> columns = AllColumns(program.groups);
  const auto num_groups = static_cast<int>(program.groups.size());
  double limit = program.max_weight;
  for (int tries = 0; tries < kMaxTries; ++tries) {
    Result<SolverPicks> found = RunSolver(columns, num_groups, limit, program.time_limit_s);
    if (!found.ok()) return found.status();
    ChoiceSolution solution = Evaluated(program.groups, std::move(found->picks), found->is_optimal);
    if (solution.weight <= program.max_weight) return solution;
    limit = std::max(least, limit - kTighten * program.max_weight);
  }
  return Status::Internal("the solver found no choice although one exists");
}

}  // namespace kvant
