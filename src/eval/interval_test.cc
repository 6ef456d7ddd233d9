#include "eval/interval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "eval/dice.h"
#include "eval/distortion.h"

namespace kvant {
namespace {

TEST(WindowMeansTest, TheLastWindowMayBeShorter) {
  const std::vector<double> values = {1, 3, 5, 7, 9};
  EXPECT_EQ(WindowMeans(values, 2), (std::vector<double>{2, 6, 9}));
  EXPECT_EQ(WindowMeans(values, 100), (std::vector<double>{5}));
}

TEST(BootstrapIntervalTest, ConstantsHaveNoWidth) {
  const Interval interval = BootstrapInterval(std::vector<double>(1000, 0.25), 64);
  EXPECT_EQ(interval.low, 0.25);
  EXPECT_EQ(interval.high, 0.25);
  const Interval single = BootstrapInterval(std::vector<double>{1, 2, 6}, 64);
  EXPECT_EQ(single.low, 3.0);
  EXPECT_EQ(single.high, 3.0);
}

// Of independent values the interval is that of a normal mean; where neighbours are equal it is wider by the root of how
// many they are.
TEST(BootstrapIntervalTest, HasTheWidthOfTheMeansError) {
  const auto normal = NormalValues(6400, 5);
  const std::vector<double> values(normal.begin(), normal.end());
  const double expected = 2 * 1.96 / std::sqrt(6400.0);
  const Interval interval = BootstrapInterval(values, 64);
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / 6400;
  EXPECT_LT(interval.low, mean);
  EXPECT_GT(interval.high, mean);
  EXPECT_NEAR((interval.high - interval.low) / expected, 1.0, 0.2);

  std::vector<double> alike;
  for (const double value : values) alike.insert(alike.end(), 64, value);
  const Interval wide = BootstrapInterval(std::span(alike).first(6400), 64);
  EXPECT_NEAR((wide.high - wide.low) / expected / 8, 1.0, 0.25);
}

// The promise itself, on skewed values such as KL: the mean of exp(normal) is exp(1/2).
TEST(BootstrapIntervalTest, HoldsTheMeanAboutAsOftenAsItSays) {
  int held = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    std::vector<double> values;
    for (const float value : NormalValues(64 * 32, seed)) values.push_back(std::exp(static_cast<double>(value)));
    const Interval interval = BootstrapInterval(values, 64);
    held += interval.low <= std::exp(0.5) && std::exp(0.5) <= interval.high;
  }
  EXPECT_GE(held, 178);
  EXPECT_LE(held, 199);
}

TEST(WilsonIntervalTest, MatchesPublishedValues) {
  // R. Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3.
  const Interval many = WilsonInterval(81, 263);
  EXPECT_NEAR(many.low, 0.2553, 1e-4);
  EXPECT_NEAR(many.high, 0.3662, 1e-4);
  const Interval none = WilsonInterval(0, 20);
  EXPECT_EQ(none.low, 0.0);
  EXPECT_NEAR(none.high, 0.1611, 1e-4);
  const Interval one = WilsonInterval(1, 29);
  EXPECT_NEAR(one.low, 0.0061, 1e-4);
  EXPECT_NEAR(one.high, 0.1718, 1e-4);
}

}  // namespace
}  // namespace kvant
