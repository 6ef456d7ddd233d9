// The multiple-choice problem: one option of each group, so that the sum of costs is least and the sum of weights stays
// within a limit. Solved exactly as a mixed-integer program by CBC (branch and cut).
//
// The same as the bit allocation of LQ-LoRA (arXiv:2311.12023, section 3.2), with KL divergence for the squared error.
#pragma once

#include <vector>

#include "kvant/status.h"

namespace kvant {

/// One option of a group.
struct Choice {
  double cost = 0;    ///< finite
  double weight = 0;  ///< finite, >= 0
};

struct ChoiceProgram {
  std::vector<std::vector<Choice>> groups;  ///< none empty
  double max_weight = 0;
  double time_limit_s = 60;
};

struct ChoiceSolution {
  std::vector<int> picks;  ///< [groups]: index of the option
  double cost = 0;         ///< sum over the picks
  double weight = 0;       ///< the same; at most max_weight
  bool is_optimal = true;  ///< false: the time limit came first; the picks are the best found until then
};

/// Least sum of weights that any picks have.
double LeastWeight(const std::vector<std::vector<Choice>>& groups);

/// Errors: InvalidArgument when max_weight is below LeastWeight, Internal when the solver gives up.
Result<ChoiceSolution> Solve(const ChoiceProgram& program);

}  // namespace kvant
