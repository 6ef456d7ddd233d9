#include "tune/cost_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvant {
namespace {

// Two layers, candidates 0 (the anchor), 1 and 2.
CostTable Profiled() {
  CostTable table(2, 3, 0);
  table.SetProfile(0, true, 1);
  table.SetProfile(1, true, 3);
  table.SetProfile(0, false, 2);
  table.SetProfile(1, false, 2);
  return table;
}

TEST(CostTableTest, TotalsAreSharedOutByTheProfile) {
  CostTable table = Profiled();
  EXPECT_EQ(table.Cost(1, true, 0), 3);  // no total: the profile itself
  table.SetTotal(true, 0, 4.4);          // together they cost a tenth more
  EXPECT_DOUBLE_EQ(*table.Cost(1, true, 0), 3.3);
  EXPECT_EQ(table.Cost(0, true, 1), std::nullopt);
  table.SetTotal(true, 1, 0.8);
  EXPECT_DOUBLE_EQ(*table.Cost(0, true, 1), 0.2);
  EXPECT_DOUBLE_EQ(*table.Cost(1, true, 1), 0.6);
}

TEST(CostTableTest, ErrorsMoveSharesBetweenLayers) {
  CostTable table = Profiled();
  for (const int layer : {0, 1}) table.SetError(layer, true, 0, 0.4);
  table.SetError(0, true, 1, 0.2);  // a quarter of the squared error
  EXPECT_EQ(table.Cost(0, true, 1), std::nullopt);
  table.SetError(1, true, 1, 0.1);  // a sixteenth
  EXPECT_DOUBLE_EQ(*table.Cost(0, true, 1), 1 / 4.0);
  EXPECT_DOUBLE_EQ(*table.Cost(1, true, 1), 3 / 16.0);
  table.SetTotal(true, 1, 7);  // shares 4 : 3
  EXPECT_DOUBLE_EQ(*table.Cost(0, true, 1), 4);
  EXPECT_DOUBLE_EQ(*table.Cost(1, true, 1), 3);
}

TEST(CostTableTest, ScaleRepairsOneLayer) {
  CostTable table = Profiled();
  table.Scale(0, false, 1.5);
  EXPECT_DOUBLE_EQ(*table.Cost(0, false, 0), 3);
  EXPECT_DOUBLE_EQ(*table.Cost(1, false, 0), 2);
}

TEST(CostTableTest, ExpectedGainIsGeometricOverArithmeticMean) {
  EXPECT_DOUBLE_EQ(Profiled().ExpectedGain(), std::pow(1.0 * 3 * 2 * 2, 0.25) / 2);
  CostTable same(2, 1, 0);
  for (const int layer : {0, 1}) {
    for (const bool is_key : {true, false}) same.SetProfile(layer, is_key, 0.1);
  }
  EXPECT_NEAR(same.ExpectedGain(), 1, 1e-12);
}

}  // namespace
}  // namespace kvant
