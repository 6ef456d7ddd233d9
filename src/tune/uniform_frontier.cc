#include "tune/uniform_frontier.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvant {
namespace {

// Does b lie on or above the line from a to c?
bool IsAbove(const UniformPoint& a, const UniformPoint& b, const UniformPoint& c) {
  const double slope = (std::log(c.kl) - std::log(a.kl)) / (c.bits - a.bits);
  return std::log(b.kl) >= std::log(a.kl) + slope * (b.bits - a.bits);
}

}  // namespace

std::vector<UniformPoint> Frontier(std::vector<UniformPoint> points) {
  std::ranges::sort(points, {}, [](const UniformPoint& p) { return std::pair(p.bits, p.kl); });
  std::vector<UniformPoint> hull;
  for (UniformPoint& point : points) {
    if (!hull.empty() && point.kl >= hull.back().kl) continue;
    while (hull.size() >= 2 && IsAbove(hull[hull.size() - 2], hull.back(), point)) hull.pop_back();
    hull.push_back(std::move(point));
  }
  return hull;
}

std::optional<double> KlAt(const std::vector<UniformPoint>& frontier, double bits) {
  const auto above = std::ranges::find_if(frontier, [&](const UniformPoint& p) { return p.bits > bits; });
  if (above == frontier.begin()) return std::nullopt;
  const UniformPoint& a = *(above - 1);
  if (above == frontier.end()) return a.kl;
  const double share = (bits - a.bits) / (above->bits - a.bits);
  return std::exp(std::log(a.kl) * (1 - share) + std::log(above->kl) * share);
}

}  // namespace kvant
