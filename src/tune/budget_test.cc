#include "tune/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvant {
namespace {

const std::vector<LayerShape> kLayers = {{.kv_heads = 2, .k_dim = 64, .v_dim = 32}, {1, 128, 128}};

double Limit(std::string_view text, int64_t tokens) {
  const Result<Budget> budget = Budget::Parse(text);
  EXPECT_TRUE(budget.ok()) << budget.status().message();
  return budget.ok() ? budget->LimitBytes(kLayers, tokens) : 0;
}

TEST(BudgetTest, ReadsItsThreeForms) {
  EXPECT_EQ(ValuesPerToken(kLayers), 448);
  EXPECT_EQ(Limit("3", 64), 3 * 448 * 64 / 8);
  EXPECT_EQ(Limit("2.5bits", 64), 2.5 * 448 * 64 / 8);
  EXPECT_EQ(Limit("1 bit", 8), 448);
  EXPECT_EQ(Limit("512B", 10), 5120);
  EXPECT_EQ(Limit("1KiB", 10), 10240);
  EXPECT_EQ(Limit("1KB", 10), 10000);
  EXPECT_EQ(Limit("64K in 2GiB", 65536), 0x1p31);
  EXPECT_EQ(Budget::Parse("64K in 2GiB")->context, 65536);
  EXPECT_EQ(Budget::Parse("4096 in 1.5MB")->amount, 1.5e6);
  EXPECT_EQ(Budget::Parse("3")->context, 0);
}

TEST(BudgetTest, RefusesTheRest) {
  for (const char* text : {"", "bits", "3x", "-3", "0", "nan", "inf", "3 in", "64K in ", " in 2GiB", "64Q in 2GiB",
                           "0 in 1B", "1e30 in 1B", "B"}) {
    const Result<Budget> budget = Budget::Parse(text);
    ASSERT_FALSE(budget.ok()) << text;
    EXPECT_THAT(budget.status().message(), testing::HasSubstr(std::string("'") + text + "'"));
    EXPECT_THAT(budget.status().message(), testing::HasSubstr("64K in 2GiB"));
  }
}

}  // namespace
}  // namespace kvant
