#include "codec/parts/sketch.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "base/simd_target.h"
#include "codec/parts/sketch_kernels.h"

namespace kvant {
namespace {

double RowProduct(const Sketch& s, int a, int b) {
  double sum = 0.0;
  for (int c = 0; c < s.dim; ++c) sum += static_cast<double>(s.row(a)[c]) * s.row(b)[c];
  return sum;
}

TEST(Sketch, RowsOfAChunkAreOrthogonal) {
  const Sketch s = MakeSketch(48, 48 + 16, kSketchSeed);  // a whole chunk and a shorter one
  for (int a = 0; a < s.rows; ++a) {
    for (int b = a / 48 * 48; b <= a; ++b) EXPECT_NEAR(RowProduct(s, a, b), a == b ? 48.0 : 0.0, 1e-4) << a << " " << b;
  }
}

TEST(Sketch, ChunksAreIndependent) {
  const Sketch s = MakeSketch(64, 128, kSketchSeed);
  double sum = 0.0;
  for (int r = 0; r < 64; ++r) sum += std::abs(RowProduct(s, r, 64 + r));
  EXPECT_NEAR(sum / 64, 8.0 * std::sqrt(2.0 / std::numbers::pi), 2.0);  // |N(0, dim)|, 2.6 standard errors
}

TEST(Sketch, FewerRowsAreTheTop) {
  const Sketch small = MakeSketch(64, 80, 7);
  const Sketch large = MakeSketch(64, 256, 7);
  for (size_t i = 0; i < small.by_row.size(); ++i) ASSERT_EQ(small.by_row[i], large.by_row[i]);
}

TEST(Sketch, StoresBothOrders) {
  const Sketch s = MakeSketch(32, 48, 7);
  for (int r = 0; r < s.rows; ++r) {
    for (int c = 0; c < s.dim; ++c) ASSERT_EQ(s.row(r)[c], s.channel(c)[r]);
  }
}

TEST(Sketch, GaussianEntriesAreNormal) {
  const Sketch s = MakeSketch(128, 256, kSketchSeed, SketchKind::kGaussian);
  double moments[5] = {};
  for (const float x : s.by_row.span()) {
    for (int p = 1; p <= 4; ++p) moments[p] += std::pow(x, p) / static_cast<double>(s.by_row.size());
  }
  EXPECT_NEAR(moments[1], 0.0, 0.022);  // 4 standard errors each
  EXPECT_NEAR(moments[2], 1.0, 0.032);
  EXPECT_NEAR(moments[3], 0.0, 0.086);
  EXPECT_NEAR(moments[4], 3.0, 0.22);
}

// The matrix is part of the format: a change of any bit makes stored blocks unreadable.
TEST(Sketch, IsPinned) {
  const Sketch s = MakeSketch(128, 1024, kSketchSeed);
  uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a over the words
  for (const float x : s.by_row.span()) hash = (hash ^ std::bit_cast<uint32_t>(x)) * 0x100000001B3u;
  EXPECT_EQ(hash, 8378898362481950134u);
  EXPECT_FLOAT_EQ(s.row(0)[0], -1.7159073f);
  EXPECT_FLOAT_EQ(s.row(1023)[127], -0.93102986f);
}

TEST(Sketch, SharedWhileHeld) {
  const auto a = SharedSketch(64, 128);
  EXPECT_EQ(a, SharedSketch(64, 128));
  EXPECT_NE(a, SharedSketch(64, 256));
  EXPECT_EQ(a->by_row[0], MakeSketch(64, 128, kSketchSeed).by_row[0]);
}

class SketchKernelsTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(SetSimdTarget(GetParam())); }
  void TearDown() override { SetSimdTarget(""); }
};

TEST_P(SketchKernelsTest, ListProductAddsListedProducts) {
  std::mt19937 random(1);
  std::uniform_int_distribution<int> small(-8, 8);  // integers: every order of sums is exact
  std::vector<float> rows(7 * 20), table(20 * 100);
  for (float& x : rows) x = static_cast<float>(small(random));
  for (float& x : table) x = static_cast<float>(small(random));
  const uint16_t list[] = {0, 3, 4, 11, 19};
  for (int columns : {16, 32, 48, 96}) {
    for (int list_size : {0, 1, 5}) {
      std::vector<float> out(7 * 112, 0.5f);
      GetSketchKernels().list_product({rows.data(), 20, 7, list, list_size, table.data(), 100, columns}, out.data(),
                                      112);
      for (size_t r = 0; r < 7; ++r) {
        for (size_t j = 0; j < 112; ++j) {
          float expected = 0.5f;
          for (int i = 0; i < list_size && j < static_cast<size_t>(columns); ++i) {
            expected += rows[r * 20 + list[i]] * table[list[i] * 100u + j];
          }
          ASSERT_EQ(out[r * 112 + j], expected) << r << " " << j << " of " << columns;
        }
      }
    }
  }
}

TEST_P(SketchKernelsTest, SignsThereAndBack) {
  float values[48];
  for (int i = 0; i < 48; ++i) values[i] = static_cast<float>(i % 5 - 2);
  values[47] = -0.0f;
  uint8_t codes[48];
  GetSketchKernels().sign_codes(values, 48, codes);
  float signs[48];
  GetSketchKernels().code_signs(codes, 48, signs);
  for (int i = 0; i < 48; ++i) {
    EXPECT_EQ(codes[i], values[i] > 0.0f);
    EXPECT_EQ(signs[i], values[i] > 0.0f ? 1.0f : -1.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SketchKernelsTest, testing::ValuesIn(SimdTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kvant
