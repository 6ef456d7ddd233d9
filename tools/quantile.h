// Quantiles of a handful of times.
#pragma once

#include <algorithm>
#include <vector>

namespace kvant {

/// The value below which a share `q` of `values` lies; q = 0.5 is the median. REQUIRES: !values.empty(), 0 <= q < 1
inline double Quantile(std::vector<double> values, double q) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size()));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace kvant
