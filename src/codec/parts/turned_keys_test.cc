#include "codec/parts/turned_keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "codec/test_rows.h"

namespace kvant {
namespace {

class TurnedKeys : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(SetSimdTarget(GetParam())); }
  void TearDown() override { SetSimdTarget(""); }
};

TEST_P(TurnedKeys, QueriesAreTurnedBackInPairOrder) {
  RopeShape shape = RopeShape::OfBase(10000, 48, false);  // of 80 channels
  shape.attention_factor = 1.5f;
  const auto rope = *Rope::Make(shape, 80);
  AlignedBuffer<float> queries(3 * 80), split(3 * 80);
  FillNormal(1, queries.span().first(160));  // the third head is zero
  AlignedBuffer<int16_t> fixed(3 * 80);
  float norm[3], unit[3];
  SplitQueries(*rope, queries.data(), 3, split.data(), norm);
  GetTurnedKeyKernels().turn_queries(*rope, 12345, split.data(), norm, 3, fixed.data(), unit);
  for (size_t h = 0; h < 3; ++h) {
    for (size_t j = 0; j < 40; ++j) {
      const bool turned = j < 24;
      const double angle = turned ? 12345 * shape.frequencies[j] : 0.0, m = turned ? 1.5 : 1.0;
      const double a = static_cast<double>(queries[h * 80 + static_cast<size_t>(rope->pair_order()[2 * j])]);
      const double b = static_cast<double>(queries[h * 80 + static_cast<size_t>(rope->pair_order()[2 * j + 1])]);
      const double step = static_cast<double>(unit[h]);
      ASSERT_NEAR(fixed[h * 80 + j] * step, m * (a * std::cos(angle) + b * std::sin(angle)), step) << h << " " << j;
      ASSERT_NEAR(fixed[h * 80 + 40 + j] * step, m * (b * std::cos(angle) - a * std::sin(angle)), step)
          << h << " " << j;
    }
  }
  EXPECT_EQ(unit[2], 0.0f);
}

TEST_P(TurnedKeys, ProductsAreExactAtTheGreatestValues) {
  std::mt19937 random(2);
  AlignedBuffer<int16_t> keys(kTurnChunkValues), queries(16 * 64);
  // Pairs of the greatest length in the worst direction, and random ones.
  std::fill_n(keys.data(), keys.size(), static_cast<int16_t>(kMaxKeyPair / std::sqrt(2.0)));
  std::fill_n(queries.data(), 64, static_cast<int16_t>(kMaxQueryPair / std::sqrt(2.0)));
  for (size_t i = 64; i < queries.size(); ++i)
    queries[i] = static_cast<int16_t>(static_cast<int>(random() % 8001) - 4000);
  for (int t = 1; t < 64; t += 2) {
    for (int c = 0; c < 32; ++c)
      keys[static_cast<size_t>(PageAngleIndex(c, t))] = static_cast<int16_t>(random() % 9000);
  }
  std::vector<float> unit(16);
  for (size_t h = 0; h < 16; ++h) unit[h] = 0x1p-20f * static_cast<float>(h + 1);
  for (const int heads : {1, 2, 3, 4, 7, 16}) {
    for (const int quads : {4, 8}) {
      AlignedBuffer<float> scores(16 * 64);
      std::fill_n(scores.data(), scores.size(), 5.0f);
      GetTurnedKeyKernels().dot(keys.data(), quads, queries.data(), 64, heads, unit.data(), scores.data());
      for (int h = 0; h < 16; ++h) {
        for (int t = 0; t < 64; ++t) {
          int64_t sum = 0;
          for (int c = 0; c < 4 * quads && h < heads; ++c) {
            sum += int64_t{keys[static_cast<size_t>(PageAngleIndex(c, t))]} *
                   queries[static_cast<size_t>(h * 64 + c % 2 * 32 + c / 2)];
          }
          const double want = 5.0 + static_cast<double>(sum) * static_cast<double>(unit[static_cast<size_t>(h)]);
          ASSERT_NEAR(scores[static_cast<size_t>(h * 64 + t)], want, 1e-6 * std::abs(want)) << h << " " << t;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, TurnedKeys, testing::ValuesIn(SimdTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kvant
