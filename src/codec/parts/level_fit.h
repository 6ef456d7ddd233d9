// Scalar codes whose levels are fitted to data: weighted k-means in one dimension.
//
// Values are normalised to -1..1 before. A level is a byte L that stands for (L - 128) / 127, which is what tile
// kernels look up; a code is the number of thresholds below the value.
#pragma once

#include <cstdint>
#include <vector>

namespace kvant {

constexpr int kMaxLevels = 16;
constexpr int kLevelCenter = 128;
constexpr float kLevelStep = 1.0f / 127.0f;

struct FittedLevels {
  uint8_t levels[kMaxLevels] = {};        ///< [2^bits], not falling
  float thresholds[kMaxLevels - 1] = {};  ///< [2^bits - 1], not falling
};

constexpr float LevelValue(int level) { return static_cast<float>(level - kLevelCenter) * kLevelStep; }

/// Number of thresholds below `value`. Values beyond all levels get an outermost code.
inline int LevelCode(const float* thresholds, int count, float value) {
  int code = 0;
  for (int i = 0; i < count; ++i) code += value > thresholds[i];
  return code;
}

/// Weighted values, in bins much narrower than a level: all that fitting needs to know of them.
class LevelHistogram {
 public:
  /// Values outside -1..1 are left out; so are weights that are not positive.
  void Add(float value, double weight);
  bool empty() const { return total_ == 0.0; }

  /// 2^bits levels with the least weighted square error that Lloyd's iteration finds from weighted quantiles.
  /// `keep_moments` (Q-Norm of KVQuant): levels are then moved so that quantised values have the mean and the variance
  /// of the values; thresholds stay.
  FittedLevels Fit(int bits, bool keep_moments) const;

 private:
  static constexpr int kBins = 4096;
  struct Bin {
    double weight = 0.0;
    double moment = 0.0;
  };
  std::vector<double> Quantiles(int count) const;
  std::vector<double> Centroids(const std::vector<double>& levels) const;
  void KeepMoments(std::vector<double>* levels) const;

  std::vector<Bin> bins_ = std::vector<Bin>(kBins);
  double total_ = 0.0;
  double squares_ = 0.0;  ///< weighted sum of squares
};

}  // namespace kvant
