// Spearman's rank correlation: do two measures order things alike?
#pragma once

#include <span>

namespace kvant {

/// -1..1; equal values share the mean of their ranks. 0 when there are fewer than two pairs, or one side is constant.
/// REQUIRES: a.size() == b.size()
double RankCorrelation(std::span<const double> a, std::span<const double> b);

}  // namespace kvant
