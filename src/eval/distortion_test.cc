#include "eval/distortion.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvant {
namespace {

TEST(NormalValuesTest, HasTheMomentsOfANormalDistribution) {
  const auto values = NormalValues(100'000, 3);
  double sum = 0, squares = 0, fourth = 0;
  for (double v : values) {
    sum += v;
    squares += v * v;
    fourth += v * v * v * v;
  }
  const double n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0.0, 0.015);
  EXPECT_NEAR(squares / n, 1.0, 0.02);
  EXPECT_NEAR(fourth / n, 3.0, 0.15);
  EXPECT_EQ(values, NormalValues(100'000, 3));
  EXPECT_NE(values[0], NormalValues(1, 4)[0]);
}

TEST(MeasureDistortionTest, Fp16RowsLoseHalfAUnitInTheLastPlace) {
  const auto codec = MakeCodec("raw", {}, {.side = Side::kKey, .dim = 128});
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  const auto measured = MeasureDistortion(*codec, 4, 1);
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(measured->bits_per_value, 16.0);
  // A rounding error of at most 2^-11 relative, uniform: about 2^-11 / sqrt(3) times the mantissa's spread.
  EXPECT_GT(measured->relative_error, 1.0 / 8192);
  EXPECT_LT(measured->relative_error, 1.0 / 2048);
}

TEST(MeasureDistortionTest, FitsABasisWhereACodecNeedsOne) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    const auto codec = MakeCodec("kvquant", {}, {.side = side, .dim = 128});
    ASSERT_TRUE(codec.ok());
    const auto measured = MeasureDistortion(*codec, 4, 1);
    ASSERT_TRUE(measured.ok()) << measured.status().message();
    EXPECT_NEAR(measured->relative_error, 0.082, 0.006);
  }
}

TEST(MeasureDistortionTest, CoversOneBlockOfAnySize) {
  const auto codec = MakeCodec("raw", {}, {.side = Side::kValue, .dim = 64});
  ASSERT_TRUE(codec.ok());
  EXPECT_LT(MeasureDistortion(*codec, 1, 1)->relative_error, 1.0 / 2048);
}

}  // namespace
}  // namespace kvant
