// How sure a measured mean or share is: intervals that hold the true one in 95 of 100 experiments.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvant {

struct Interval {
  double low = 0;
  double high = 0;
};

/// Mean of each `window` successive values, the last window may be shorter. REQUIRES: window > 0
std::vector<double> WindowMeans(std::span<const double> values, int window);

/// Of the mean of `values`, by drawing whole windows of successive ones with replacement: neighbours in a text are alike, so
/// they are not drawn one by one. Percentile bootstrap: B. Efron, Bootstrap Methods, 1979; of blocks: H. Künsch, The
/// Jackknife and the Bootstrap for General Stationary Observations, 1989. The same in every run. A single window gives the
/// mean twice. REQUIRES: !values.empty()
Interval BootstrapInterval(std::span<const double> values, int window);

/// Of a share of which `right` out of `asked` were seen: E. Wilson, Probable Inference, 1927. REQUIRES: asked > 0
Interval WilsonInterval(int64_t right, int64_t asked);

}  // namespace kvant
