#include "codec/parts/level_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "codec/parts/codebook.h"

namespace kvant {
namespace {

// Normal values, cut and scaled so that `cut` becomes 1.
LevelHistogram Normal(double cut) {
  LevelHistogram histogram;
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (int i = 0; i < 400000; ++i) histogram.Add(static_cast<float>(normal(random) / cut), 1.0);
  return histogram;
}

TEST(LevelFit, FindsLloydMaxOfTheNormalDistribution) {
  constexpr double kCut = 6.0;  // far out: nothing is cut
  const LevelHistogram histogram = Normal(kCut);
  for (const int bits : {2, 3}) {
    double magnitudes[8], thresholds[8];
    SolveLloydMax(bits, magnitudes, thresholds);
    const FittedLevels fitted = histogram.Fit(bits, false);
    for (int i = 0; i < 1 << (bits - 1); ++i) {
      const double level = static_cast<double>(LevelValue(fitted.levels[(1 << (bits - 1)) + i]));
      EXPECT_NEAR(level * kCut, magnitudes[i], 0.05) << bits << " bits, level " << i;  // a byte is 0.047
    }
  }
}

TEST(LevelFit, WeightsDecideWhereLevelsAre) {
  LevelHistogram histogram;
  for (int i = 0; i < 1000; ++i) {
    const float x = static_cast<float>(i) / 999.0f;
    histogram.Add(x - 1.0f, 1.0);
    histogram.Add(x, 1e-6);
  }
  const FittedLevels fitted = histogram.Fit(2, false);
  EXPECT_LT(LevelValue(fitted.levels[3]), 0.0f);
}

TEST(LevelFit, ThresholdsLieBetweenLevels) {
  const FittedLevels fitted = Normal(2.5).Fit(4, false);
  for (int i = 0; i < 15; ++i) {
    EXPECT_FLOAT_EQ(fitted.thresholds[i], (LevelValue(fitted.levels[i]) + LevelValue(fitted.levels[i + 1])) / 2);
    EXPECT_EQ(LevelCode(fitted.thresholds, 15, LevelValue(fitted.levels[i])), i);
  }
  EXPECT_EQ(LevelCode(fitted.thresholds, 15, -7.0f), 0);
  EXPECT_EQ(LevelCode(fitted.thresholds, 15, 7.0f), 15);
}

TEST(LevelFit, QNormKeepsMeanAndVariance) {
  LevelHistogram histogram;
  std::vector<float> values;
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.1f, 0.35f);
  for (int i = 0; i < 100000; ++i) {
    const float x = normal(random);
    if (std::abs(x) > 1.0f) continue;
    values.push_back(x);
    histogram.Add(x, 1.0);
  }
  const auto moments = [&](const FittedLevels& fitted) {
    double mean = 0, squares = 0;
    for (const float x : values) {
      const double y = static_cast<double>(LevelValue(fitted.levels[LevelCode(fitted.thresholds, 3, x)]));
      mean += y / static_cast<double>(values.size());
      squares += y * y / static_cast<double>(values.size());
    }
    return std::pair(mean, squares - mean * mean);
  };
  double mean = 0, squares = 0;
  for (const float x : values) {
    mean += static_cast<double>(x) / static_cast<double>(values.size());
    squares += static_cast<double>(x) * static_cast<double>(x) / static_cast<double>(values.size());
  }
  const double variance = squares - mean * mean;
  const auto [kept_mean, kept_variance] = moments(histogram.Fit(2, true));
  EXPECT_NEAR(kept_mean, mean, 0.004);  // half a byte
  EXPECT_NEAR(kept_variance / variance, 1.0, 0.02);
  const auto [plain_mean, plain_variance] = moments(histogram.Fit(2, false));
  EXPECT_NEAR(plain_mean, mean, 0.004);
  EXPECT_LT(plain_variance / variance, 0.92);  // k-means shrinks
}

TEST(LevelFit, ConstantAndMissingValues) {
  LevelHistogram histogram;
  EXPECT_TRUE(histogram.empty());
  EXPECT_THAT(histogram.Fit(2, true).levels, testing::Contains(kLevelCenter));
  histogram.Add(0.5f, 3.0);
  histogram.Add(1.5f, 3.0);
  histogram.Add(NAN, 3.0);
  const FittedLevels fitted = histogram.Fit(2, true);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(LevelValue(fitted.levels[i]), 0.5, 0.004);
}

}  // namespace
}  // namespace kvant
