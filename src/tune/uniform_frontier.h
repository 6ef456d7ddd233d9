// The best that one scheme for all layers reaches at a number of bits.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace kvant {

/// One scheme for all layers.
struct UniformPoint {
  std::string cache;
  double bits = 0;  ///< per value
  double kl = 0;    ///< nats, > 0
};

/// The lower convex hull of log KL over bits, by rising bits and falling KL: what a mixture of uniform schemes would reach.
std::vector<UniformPoint> Frontier(std::vector<UniformPoint> points);

/// KL on the line between the neighbours of `bits` on the frontier, in log KL; that of the largest point beyond it. Nothing when
/// `bits` is below the smallest.
std::optional<double> KlAt(const std::vector<UniformPoint>& frontier, double bits);

}  // namespace kvant
