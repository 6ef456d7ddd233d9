#include "eval/interval.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "eval/dice.h"

namespace kvant {
namespace {

// The ends of the interval wander by some 2 % of its width.
constexpr size_t kDraws = 4000;
constexpr size_t kTail = kDraws / 40;     // 2.5 %
constexpr double kNormalQuantile = 1.96;  // of 97.5 %

double Mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<std::span<const double>> Windows(std::span<const double> values, int window) {
  std::vector<std::span<const double>> windows;
  const auto size = static_cast<size_t>(window);
  for (size_t i = 0; i < values.size(); i += size)
    windows.push_back(values.subspan(i, std::min(size, values.size() - i)));
  return windows;
}

}  // namespace

std::vector<double> WindowMeans(std::span<const double> values, int window) {
  KVANT_CHECK(window > 0);
  std::vector<double> means;
  for (const auto part : Windows(values, window)) means.push_back(Mean(part));
  return means;
}

Interval BootstrapInterval(std::span<const double> values, int window) {
  KVANT_CHECK(window > 0 && !values.empty());
  const auto windows = Windows(values, window);
  if (windows.size() == 1) return {Mean(values), Mean(values)};
  std::vector<double> sums;
  for (const auto part : windows) sums.push_back(std::accumulate(part.begin(), part.end(), 0.0));
  Dice dice(1);
  std::vector<double> means(kDraws);
  for (double& mean : means) {
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < windows.size(); ++i) {
      const size_t drawn = dice.Below(windows.size());
      sum += sums[drawn];
      count += windows[drawn].size();
    }
    mean = sum / static_cast<double>(count);
  }
  std::ranges::sort(means);
  return {means[kTail], means[kDraws - 1 - kTail]};
}

Interval WilsonInterval(int64_t right, int64_t asked) {
  KVANT_CHECK(asked > 0 && right >= 0 && right <= asked);
  const double n = static_cast<double>(asked), share = static_cast<double>(right) / n;
  const double z2 = kNormalQuantile * kNormalQuantile;
  const double middle = (share + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kNormalQuantile / (1 + z2 / n) * std::sqrt(share * (1 - share) / n + z2 / (4 * n * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

}  // namespace kvant
