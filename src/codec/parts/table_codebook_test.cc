#include "codec/parts/table_codebook.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/simd_target.h"
#include "codec/test_rows.h"

namespace kvant {
namespace {

TEST(TableCodebookTest, NormalFloatIsThePublishedTable) {
  constexpr double kPublished[16] = {-1.0,   -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
                                     0.0796, 0.1609,  0.2461,  0.3379,  0.4407,  0.5626,  0.7230,  1.0};
  const TableCodebook& table = NormalFloat(4);
  for (int i = 0; i < 16; ++i) EXPECT_NEAR(table.value(i), kPublished[i], 0.5 / 127 + 1e-4) << i;
  EXPECT_EQ(table.value(7), 0.0f);
  EXPECT_EQ(NormalFloat(2).value(1), 0.0f);
  EXPECT_EQ(NormalFloat(3).entries(), 8);
}

TEST(TableCodebookTest, UniformTableReachesBothEnds) {
  const TableCodebook& table = UniformTable(2);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(table.value(i), (2 * i - 3) / 3.0, 0.5 / 127) << i;
}

TEST(TableCodebookTest, CodesAreNearest) {
  const TableCodebook table = MakeTable(std::vector<float>{-3.0f, -0.5f, 0.25f, 6.0f});
  EXPECT_FLOAT_EQ(table.value(3), 6.0f);
  for (float x = -8.0f; x < 8.0f; x += 0.01f) {
    const float chosen = std::abs(table.value(TableCode(table, x)) - x);
    for (int i = 0; i < 4; ++i) EXPECT_LE(chosen, std::abs(table.value(i) - x) + 1e-6f) << x;
  }
}

TEST(TableCodebookTest, AllZeroTablesAreValid) {
  const TableCodebook table = MakeTable(std::vector<float>(8, 0.0f));
  EXPECT_EQ(table.value(TableCode(table, 5.0f)), 0.0f);
}

TEST(TableCodebookTest, EveryTargetQuantizesTheSame) {
  std::vector<float> values(160);
  FillNormal(1, values);
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const TableCodebook* table : {&NormalFloat(4), &NormalFloat(3), &UniformTable(2)}) {
      std::vector<uint8_t> codes(values.size());
      std::vector<float> units(values.size());
      GetTableKernels().quantize(*table, values.data(), static_cast<int>(values.size()), 0.4f, codes.data(),
                                 units.data());
      for (size_t i = 0; i < values.size(); ++i) {
        EXPECT_EQ(codes[i], TableCode(*table, values[i] * 0.4f)) << target;
        EXPECT_EQ(units[i], table->value(codes[i])) << target;
      }
    }
    EXPECT_EQ(GetTableKernels().largest(values.data(), static_cast<int>(values.size())),
              std::abs(*std::max_element(values.begin(), values.end(),
                                         [](float a, float b) { return std::abs(a) < std::abs(b); })));
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
