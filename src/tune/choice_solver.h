// What solves a choice program: CBC, or a build without it (no_cbc.cc).
#pragma once

#include <vector>

#include "kvant/status.h"

namespace kvant {

/// An option of a group that may be part of a best solution: a binary variable.
struct Column {
  int group;
  int option;
  double cost;
  double weight;
};

struct SolverPicks {
  std::vector<int> picks;  ///< [num_groups]: option of each group
  bool is_optimal = true;
};

/// One column of each group, least sum of costs, weights up to max_weight within the solver's tolerance of about 1e-7.
/// REQUIRES: such columns exist. Errors: Internal when the solver finds none, NotSupported without a solver.
Result<SolverPicks> RunSolver(const std::vector<Column>& columns, int num_groups, double max_weight,
                              double time_limit_s);

}  // namespace kvant
