#include "page/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/simd_target.h"

namespace kvant {
namespace {

std::vector<float> Normal(size_t n) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

std::shared_ptr<const Rope> MakeRope(const RopeShape& shape, int dim) {
  auto rope = Rope::Make(shape, dim);
  EXPECT_TRUE(rope.ok()) << rope.status().message();
  return *rope;
}

// The definition, in double precision.
std::vector<double> Turned(const Rope& rope, int32_t position, const float* row) {
  std::vector<double> out(row, row + rope.dim());
  const size_t pairs = static_cast<size_t>(rope.pairs());
  for (size_t j = 0; j < pairs; ++j) {
    const size_t a = rope.shape().interleaved ? 2 * j : j;
    const size_t b = rope.shape().interleaved ? 2 * j + 1 : j + pairs;
    const double angle = position * rope.shape().frequencies[j], m = static_cast<double>(rope.factor());
    out[a] = m * (static_cast<double>(row[a]) * std::cos(angle) - static_cast<double>(row[b]) * std::sin(angle));
    out[b] = m * (static_cast<double>(row[a]) * std::sin(angle) + static_cast<double>(row[b]) * std::cos(angle));
  }
  return out;
}

struct Case {
  int dim;
  int turned;
  bool interleaved;
  float factor;
};

class RopeTest : public testing::TestWithParam<Case> {};

TEST_P(RopeTest, TurnsAsDefinedAndBack) {
  const auto [dim, turned, interleaved, factor] = GetParam();
  RopeShape shape = RopeShape::OfBase(10000, turned, interleaved);
  shape.attention_factor = factor;
  const auto rope = MakeRope(shape, dim);
  const std::vector<int32_t> positions = {0, 1, 63, 64, 65, 5000, 5001, 4999, 1234567, kMaxPositions - 1};
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    const std::vector<float> rows = Normal(positions.size() * static_cast<size_t>(dim));
    std::vector<float> got = rows;
    TurnRows(*rope, positions.data(), static_cast<int>(positions.size()), got.data());
    for (size_t t = 0; t < positions.size(); ++t) {
      const auto want = Turned(*rope, positions[t], &rows[t * static_cast<size_t>(dim)]);
      for (size_t c = 0; c < want.size(); ++c) ASSERT_NEAR(got[t * want.size() + c], want[c], 1e-5) << t << " " << c;
    }
    TurnRowsBack(*rope, positions.data(), static_cast<int>(positions.size()), got.data());
    EXPECT_THAT(got, testing::Pointwise(testing::FloatNear(2e-5f), rows)) << target;
  }
  SetSimdTarget("");
}

INSTANTIATE_TEST_SUITE_P(Kinds, RopeTest,
                         testing::Values(Case{128, 128, false, 1.0f}, Case{128, 128, true, 1.0f},
                                         Case{80, 80, false, 1.2f}, Case{80, 80, true, 1.0f}, Case{96, 24, false, 0.8f},
                                         Case{256, 64, true, 1.0f}, Case{256, 256, false, 1.0f}),
                         [](const auto& info) {
                           return std::to_string(info.param.turned) + "of" + std::to_string(info.param.dim) +
                                  (info.param.interleaved ? "interleaved" : "split");
                         });

TEST(Rope, PairOrderPutsPartnersSideBySide) {
  const auto split = MakeRope(RopeShape::OfBase(10000, 8, false), 16);
  EXPECT_THAT(std::vector<int>(split->pair_order(), split->pair_order() + 16),
              testing::ElementsAre(0, 4, 1, 5, 2, 6, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const auto interleaved = MakeRope(RopeShape::OfBase(10000, 16, true), 16);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(interleaved->pair_order()[i], i);
}

TEST(Rope, PageAnglesAreThoseOfThePositions) {
  const auto rope = MakeRope(RopeShape::OfBase(10000, 24, false), 32);  // four pairs are not turned
  std::vector<int32_t> positions;
  for (int t = 0; t < kTokensPerPage; ++t) positions.push_back(t * 37 % 64 * 91);
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    std::vector<int16_t> angles(PageAngleValues(32));
    rope->PageAngles(positions.data(), angles.data());
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (size_t j = 0; j < 16; ++j) {
        const double angle = j < 12 ? positions[static_cast<size_t>(t)] * rope->shape().frequencies[j] : 0.0;
        const auto at = [&](int member) {
          return angles[static_cast<size_t>(PageAngleIndex(2 * static_cast<int>(j) + member, t))];
        };
        ASSERT_NEAR(at(0), 32767 * std::cos(angle), 1.0) << t << " " << j;
        ASSERT_NEAR(at(1), 32767 * std::sin(angle), 1.0) << t << " " << j;
      }
    }
  }
  SetSimdTarget("");
}

TEST(Rope, ConsecutivePositions) {
  const int32_t positions[] = {7, 8, 9, 11};
  EXPECT_TRUE(AreConsecutive(positions, 1));
  EXPECT_TRUE(AreConsecutive(positions, 3));
  EXPECT_FALSE(AreConsecutive(positions, 4));
}

TEST(Rope, RefusesWhatCannotBe) {
  const auto message = [](const RopeShape& shape, int dim) { return Rope::Make(shape, dim).status().message(); };
  EXPECT_EQ(message({}, 128), "RoPE has 0 frequencies; accepted for a head of 128: 1..64");
  EXPECT_EQ(message(RopeShape::OfBase(1e4, 128, false), 64),
            "RoPE has 64 frequencies; accepted for a head of 64: 1..32");
  EXPECT_THAT(message({.frequencies = {INFINITY}}, 64), testing::HasSubstr("not finite"));
  EXPECT_THAT(message({.frequencies = {1.0}, .interleaved = false, .attention_factor = 0}, 64),
              testing::HasSubstr("attention factor 0"));
}

}  // namespace
}  // namespace kvant
