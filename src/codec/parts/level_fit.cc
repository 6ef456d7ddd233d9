#include "codec/parts/level_fit.h"

#include <algorithm>
#include <cmath>

namespace kvant {
namespace {

constexpr int kIterations = 50;

double OnGrid(double level) {
  const double byte = std::clamp(std::nearbyint(kLevelCenter + level * 127.0), 0.0, 255.0);
  return (byte - kLevelCenter) / 127.0;
}

double Nearest(const std::vector<double>& levels, double value) {
  return *std::ranges::min_element(levels, {}, [value](double level) { return std::abs(level - value); });
}

}  // namespace

void LevelHistogram::Add(float value, double weight) {
  if (!(std::abs(value) <= 1.0f) || !(weight > 0.0)) return;
  const double x = static_cast<double>(value);
  Bin& bin = bins_[static_cast<size_t>(std::min(kBins - 1, static_cast<int>((x + 1.0) / 2.0 * kBins)))];
  bin.weight += weight;
  bin.moment += weight * x;
  total_ += weight;
  squares_ += weight * x * x;
}

std::vector<double> LevelHistogram::Quantiles(int count) const {
  std::vector<double> levels;
  double below = 0.0;
  for (const Bin& bin : bins_) {
    below += bin.weight;
    while (bin.weight > 0.0 && std::ssize(levels) < count &&
           below >= total_ * (static_cast<double>(levels.size()) + 0.5) / count) {
      levels.push_back(bin.moment / bin.weight);
    }
  }
  levels.resize(static_cast<size_t>(count), levels.empty() ? 0.0 : levels.back());
  return levels;
}

// Means of the cells around `levels`; a level without values stays.
std::vector<double> LevelHistogram::Centroids(const std::vector<double>& levels) const {
  std::vector<double> centroids = levels;
  size_t b = 0;
  for (size_t i = 0; i < levels.size(); ++i) {
    const double end = i + 1 < levels.size() ? (levels[i] + levels[i + 1]) / 2.0 : 2.0;
    Bin cell;
    for (; b < bins_.size() && (bins_[b].weight == 0.0 || bins_[b].moment / bins_[b].weight <= end); ++b) {
      cell.weight += bins_[b].weight;
      cell.moment += bins_[b].moment;
    }
    if (cell.weight > 0.0) centroids[i] = cell.moment / cell.weight;
  }
  return centroids;
}

void LevelHistogram::KeepMoments(std::vector<double>* levels) const {
  double mean = 0.0, quantised_mean = 0.0, quantised_squares = 0.0;
  for (const Bin& bin : bins_) {
    if (bin.weight == 0.0) continue;
    const double level = Nearest(*levels, bin.moment / bin.weight);
    mean += bin.moment / total_;
    quantised_mean += bin.weight * level / total_;
    quantised_squares += bin.weight * level * level / total_;
  }
  const double variance = squares_ / total_ - mean * mean;
  const double quantised_variance = quantised_squares - quantised_mean * quantised_mean;
  if (!(quantised_variance > 0.0)) return;
  const double gain = std::sqrt(std::max(variance, 0.0) / quantised_variance);
  for (double& level : *levels) level = (level - quantised_mean) * gain + mean;
}

FittedLevels LevelHistogram::Fit(int bits, bool keep_moments) const {
  std::vector<double> levels = Quantiles(1 << bits);
  for (int i = 0; i < kIterations && total_ > 0.0; ++i) levels = Centroids(levels);
  for (double& level : levels) level = OnGrid(level);  // thresholds between what codes really stand for
  FittedLevels fitted;
  for (size_t i = 0; i + 1 < levels.size(); ++i) {
    fitted.thresholds[i] = static_cast<float>((levels[i] + levels[i + 1]) / 2.0);
  }
  if (keep_moments && total_ > 0.0) KeepMoments(&levels);
  for (size_t i = 0; i < levels.size(); ++i) {
    fitted.levels[i] = static_cast<uint8_t>(std::lround(OnGrid(levels[i]) * 127.0) + kLevelCenter);
  }
  return fitted;
}

}  // namespace kvant
