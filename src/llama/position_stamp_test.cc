#include "llama/position_stamp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kvant {
namespace {

std::vector<F16> Row(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<F16> row(64);
  for (F16& v : row) v = ToF16(normal(random));
  return row;
}

TEST(PositionStamp, ComesBackAndCostsALastPlace) {
  for (const int32_t position : {0, 1, 63, 4097, 123456, kMaxPositions - 1}) {
    const std::vector<F16> before = Row(1);
    std::vector<F16> row = before;
    StampPosition(position, row.data());
    ASSERT_TRUE(StampedPosition(row.data()));
    EXPECT_EQ(*StampedPosition(row.data()), position);
    for (size_t i = 0; i < row.size(); ++i) {
      EXPECT_NEAR(ToFloat(row[i]), ToFloat(before[i]), std::abs(ToFloat(before[i])) * 0x1p-10f);
    }
  }
}

TEST(PositionStamp, OtherRowsHaveNone) {
  for (unsigned seed = 0; seed < 1000; ++seed) EXPECT_FALSE(StampedPosition(Row(seed).data())) << seed;
  const std::vector<F16> zeros(64);
  EXPECT_EQ(StampedPosition(zeros.data()), 0);
}

}  // namespace
}  // namespace kvant
