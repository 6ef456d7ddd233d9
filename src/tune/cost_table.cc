#include "tune/cost_table.h"

#include <algorithm>
#include <cmath>

namespace kvant {
namespace {

// A layer whose divergence rounds to nothing still costs something.
constexpr double kLeastKl = 1e-12;

}  // namespace

CostTable::CostTable(int num_layers, int num_candidates, int anchor)
    : num_layers_(num_layers), num_candidates_(num_candidates), anchor_(anchor) {
  const auto layers = static_cast<size_t>(num_layers), candidates = static_cast<size_t>(num_candidates);
  keys_ = {.profile = std::vector<double>(layers, 0.0),
           .factors = std::vector<double>(layers, 1.0),
           .totals = std::vector<std::optional<double>>(candidates),
           .errors = std::vector(candidates, std::vector<std::optional<double>>(layers))};
  values_ = keys_;
}

bool CostTable::HasErrors(bool is_key, int candidate) const {
  const auto& errors = Of(is_key).errors;
  const auto positive = [](const std::optional<double>& e) { return e.has_value() && *e > 0; };
  return std::ranges::all_of(errors[Index(candidate)], positive) &&
         std::ranges::all_of(errors[Index(anchor_)], positive);
}

// Up to a factor that is the same for all layers when the errors are not known.
std::optional<double> CostTable::Weight(int layer, bool is_key, int candidate) const {
  const double profile = std::max(Of(is_key).profile[Index(layer)], kLeastKl);
  if (candidate == anchor_ || !HasErrors(is_key, candidate)) return profile;
  const double ratio = *Error(layer, is_key, candidate) / *Error(layer, is_key, anchor_);
  return profile * ratio * ratio;
}

std::optional<double> CostTable::PredictedTotal(bool is_key, int candidate) const {
  if (const std::optional<double> total = Total(is_key, candidate)) return total;
  if (candidate != anchor_ && !HasErrors(is_key, candidate)) return std::nullopt;
  double weights = 0, profiles = 0;
  for (int layer = 0; layer < num_layers_; ++layer) {
    weights += *Weight(layer, is_key, candidate);
    profiles += std::max(Of(is_key).profile[Index(layer)], kLeastKl);
  }
  // How far the anchor's layers together are from their sum.
  return weights * Total(is_key, anchor_).value_or(profiles) / profiles;
}

std::optional<double> CostTable::Cost(int layer, bool is_key, int candidate) const {
  const std::optional<double> total = PredictedTotal(is_key, candidate);
  if (!total) return std::nullopt;
  double weights = 0;
  for (int i = 0; i < num_layers_; ++i) weights += *Weight(i, is_key, candidate);
  return *total * *Weight(layer, is_key, candidate) / weights * Of(is_key).factors[Index(layer)];
}

double CostTable::ExpectedGain() const {
  double logs = 0, sum = 0;
  for (const Side* side : {&keys_, &values_}) {
    for (const double kl : side->profile) {
      logs += std::log(std::max(kl, kLeastKl));
      sum += std::max(kl, kLeastKl);
    }
  }
  const double count = 2.0 * num_layers_;
  return std::exp(logs / count) / (sum / count);
}

}  // namespace kvant
