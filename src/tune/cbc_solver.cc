// choice_solver.h with COIN-OR CBC (Eclipse Public License; a library of its own, which we only link), through its C interface.
#include <Cbc_C_Interface.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "tune/choice_solver.h"

namespace kvant {
namespace {

// Costs and weights are brought to values of this order, where the solver's tolerances (1e-7) are far below what counts.
constexpr double kScale = 1e3;

struct DeleteModel {
  void operator()(void* model) const { Cbc_deleteModel(model); }
};
using Model = std::unique_ptr<void, DeleteModel>;

double LargestMagnitude(const std::vector<Column>& columns, double Column::*member) {
  double largest = 0;
  for (const Column& c : columns) largest = std::max(largest, std::abs(c.*member));
  return largest > 0 ? largest : 1;
}

// Binary variables, one row "exactly one" per group, one row for the weights.
Model Build(const std::vector<Column>& columns, int num_groups, double max_weight, double time_limit_s) {
  const double cost_scale = kScale / LargestMagnitude(columns, &Column::cost);
  const double weight_scale = kScale / LargestMagnitude(columns, &Column::weight);
  std::vector<int> starts, rows;
  std::vector<double> values, costs;
  for (const Column& c : columns) {
    starts.push_back(static_cast<int>(rows.size()));
    rows.insert(rows.end(), {c.group, num_groups});
    values.insert(values.end(), {1.0, c.weight * weight_scale});
    costs.push_back(c.cost * cost_scale);
  }
  starts.push_back(static_cast<int>(rows.size()));
  const std::vector<double> zeros(columns.size(), 0.0), ones(columns.size(), 1.0);
  std::vector<double> row_low(static_cast<size_t>(num_groups), 1.0), row_high = row_low;
  row_low.push_back(0.0);
  row_high.push_back(max_weight * weight_scale);
  Model model(Cbc_newModel());
  Cbc_setLogLevel(model.get(), 0);
  Cbc_setParameter(model.get(), "preprocess", "off");  // CBC 2.10.8 loses best choices by it: 4 of 200 in the test
  Cbc_loadProblem(model.get(), static_cast<int>(columns.size()), num_groups + 1, starts.data(), rows.data(),
                  values.data(), zeros.data(), ones.data(), costs.data(), row_low.data(), row_high.data());
  for (int i = 0; i < static_cast<int>(columns.size()); ++i) Cbc_setInteger(model.get(), i);
  Cbc_setMaximumSeconds(model.get(), time_limit_s);
  return model;
}

}  // namespace

Result<SolverPicks> RunSolver(const std::vector<Column>& columns, int num_groups, double max_weight,
                              double time_limit_s) {
  const Model model = Build(columns, num_groups, max_weight, time_limit_s);
  Cbc_solve(model.get());
  const double* values = Cbc_getColSolution(model.get());
  SolverPicks found = {.picks = std::vector<int>(static_cast<size_t>(num_groups), -1),
                       .is_optimal = Cbc_isProvenOptimal(model.get()) != 0};
  for (size_t i = 0; values != nullptr && i < columns.size(); ++i) {
    if (values[i] > 0.5) found.picks[static_cast<size_t>(columns[i].group)] = columns[i].option;
  }
  if (std::ranges::find(found.picks, -1) == found.picks.end()) return found;
  return Status::Internal("the solver found no choice although one exists");
}

}  // namespace kvant
