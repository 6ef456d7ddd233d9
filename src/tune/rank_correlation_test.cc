#include "tune/rank_correlation.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvant {
namespace {

double Of(std::vector<double> a, std::vector<double> b) { return RankCorrelation(a, b); }

TEST(RankCorrelationTest, ComparesOrders) {
  EXPECT_DOUBLE_EQ(Of({1, 2, 3}, {10, 200, 3000}), 1);
  EXPECT_DOUBLE_EQ(Of({1, 2, 3}, {3, 2, 1}), -1);
  EXPECT_DOUBLE_EQ(Of({1, 2, 3, 4, 5}, {2, 1, 4, 3, 5}), 0.8);  // 1 - 6 * 4 / (5 * 24)
  EXPECT_DOUBLE_EQ(Of({1, 1, 2, 2}, {1, 1, 2, 2}), 1);
}

TEST(RankCorrelationTest, IsZeroWhereThereIsNoOrder) {
  EXPECT_EQ(Of({}, {}), 0);
  EXPECT_EQ(Of({1}, {2}), 0);
  EXPECT_EQ(Of({1, 1}, {1, 2}), 0);
}

}  // namespace
}  // namespace kvant
