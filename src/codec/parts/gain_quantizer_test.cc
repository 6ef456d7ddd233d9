#include "codec/parts/gain_quantizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/simd_target.h"
#include "codec/parts/strip.h"

namespace kvant {
namespace {

constexpr int kTiles = 8;
constexpr int kDim = kTiles * kTileChannels;
using Bits = std::vector<uint8_t>;

std::vector<float> GaussianRows(int count, float size) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> rows(static_cast<size_t>(count * kDim));
  for (float& v : rows) v = normal(rng);
  return rows;
}

struct Result {
  std::vector<uint8_t> codes = std::vector<uint8_t>(kStripRows * kDim);
  std::vector<float> scales = std::vector<float>(kStripRows);
};

Result ByRow(const GainQuantizer& q, const float* rows) {
  Result result;
  for (int r = 0; r < kStripRows; ++r)
    QuantizeRow(q, rows + r * kDim, &result.codes[static_cast<size_t>(r * kDim)],
                &result.scales[static_cast<size_t>(r)]);
  return result;
}

Result ByKernel(const GainQuantizer& q, const float* rows) {
  Strip strip;
  LoadStrip(rows, kDim, kStripRows, kDim, strip.values);
  Result result;
  GetGainQuantizerKernels().quantize(q, strip.values, result.codes.data(), result.scales.data());
  return result;
}

TEST(GainQuantizerTest, HandComputedRow) {
  // Two bits, all values +-1 and +-2, eight each: gain sqrt(2.5), so 1 -> 0.632 (below the threshold 0.98)
  // and 2 -> 1.265 (above it).
  const Bits bits = {2};
  float row[16];
  for (int c = 0; c < 16; ++c) row[c] = (c % 2 ? 2.0f : 1.0f) * (c % 4 < 2 ? 1.0f : -1.0f);
  uint8_t codes[16];
  float scale = 0.0f;
  QuantizeRow({&LloydMaxCodebooks(), bits.data(), 1, nullptr, ScaleRule::kLeastSquares}, row, codes, &scale);
  for (int c = 0; c < 16; c += 4) {
    EXPECT_EQ(codes[c], 2);
    EXPECT_EQ(codes[c + 1], 3);
    EXPECT_EQ(codes[c + 2], 1);
    EXPECT_EQ(codes[c + 3], 0);
  }
  const double a = 0.45278;
  const double b = 1.51042;
  EXPECT_NEAR(scale, (a + 2 * b) / (a * a + b * b), 2e-3);
}

TEST(GainQuantizerTest, ScaleRulesKeepTheirPromise) {
  const Bits bits(kTiles, 2);
  const std::vector<float> row = GaussianRows(1, 3.0f);
  uint8_t codes[kDim];
  float least = 0.0f;
  float unbiased = 0.0f;
  QuantizeRow({&LloydMaxCodebooks(), bits.data(), kTiles, nullptr, ScaleRule::kUnbiased}, row.data(), codes, &unbiased);
  QuantizeRow({&LloydMaxCodebooks(), bits.data(), kTiles, nullptr, ScaleRule::kLeastSquares}, row.data(), codes,
              &least);
  double energy = 0.0;
  double dot = 0.0;
  double norm = 0.0;
  for (int c = 0; c < kDim; ++c) {
    const double value = CodeValue(LloydMaxCodebooks(), 2, codes[c]);
    energy += row[static_cast<size_t>(c)] * row[static_cast<size_t>(c)];
    dot += row[static_cast<size_t>(c)] * value;
    norm += value * value;
  }
  EXPECT_NEAR(unbiased * dot / energy, 1.0, 1e-5);
  EXPECT_NEAR(least * norm / dot, 1.0, 1e-5);
  EXPECT_GT(unbiased, least);

  const auto scale_of = [&](ScaleRule rule) {
    float scale = 0.0f;
    QuantizeRow({&LloydMaxCodebooks(), bits.data(), kTiles, nullptr, rule}, row.data(), codes, &scale);
    return scale;
  };
  EXPECT_NEAR(scale_of(ScaleRule::kNorm), std::sqrt(energy / kDim), 1e-4);
  EXPECT_NEAR(scale_of(ScaleRule::kSameNorm), std::sqrt(energy / norm), 1e-4);
}

// The measured error on N(0,1) rows is the codebook's own, less the little that the fitted scale gains.
TEST(GainQuantizerTest, ReachesTheCodebooksDistortion) {
  constexpr int kRows = 400;
  const std::vector<float> rows = GaussianRows(kRows, 1.0f);
  for (const CodebookSet* books : {&LloydMaxCodebooks(), &UniformCodebooks()}) {
    for (const uint8_t width : {1, 2, 3, 4, 6, 8}) {
      const Bits bits(kTiles, width);
      const GainQuantizer q = {books, bits.data(), kTiles, nullptr, ScaleRule::kLeastSquares};
      double error = 0.0;
      for (int r = 0; r < kRows; ++r) {
        uint8_t codes[kDim];
        float scale = 0.0f;
        QuantizeRow(q, &rows[static_cast<size_t>(r * kDim)], codes, &scale);
        for (int c = 0; c < kDim; ++c) {
          const double difference =
              rows[static_cast<size_t>(r * kDim + c)] - scale * CodeValue(*books, width, codes[c]);
          error += difference * difference;
        }
      }
      const double ratio = error / (kRows * kDim) / books->by_bits[width].distortion;
      EXPECT_GT(ratio, 0.88) << int{width};  // rows of 128 values have shorter tails than N(0,1)
      EXPECT_LT(ratio, 1.02) << int{width};
    }
  }
}

TEST(GainQuantizerTest, ZeroRowsGiveZeroScale) {
  const Bits bits(kTiles, 3);
  const std::vector<float> rows(kStripRows * kDim, 0.0f);
  for (const ScaleRule rule :
       {ScaleRule::kLeastSquares, ScaleRule::kUnbiased, ScaleRule::kNorm, ScaleRule::kSameNorm, ScaleRule::kAbsMax}) {
    const CodebookSet* books = rule == ScaleRule::kAbsMax ? &SymmetricCodebooks() : &LloydMaxCodebooks();
    const GainQuantizer q = {books, bits.data(), kTiles, nullptr, rule};
    for (const float scale : ByRow(q, rows.data()).scales) EXPECT_EQ(scale, 0.0f);
    for (const float scale : ByKernel(q, rows.data()).scales) EXPECT_EQ(scale, 0.0f);
  }
}

TEST(GainQuantizerTest, AbsMaxUsesTheWholeRange) {
  const Bits bits(kTiles, 4);
  const std::vector<float> rows = GaussianRows(kStripRows, 1.0f);
  const Result result = ByRow({&SymmetricCodebooks(), bits.data(), kTiles, nullptr, ScaleRule::kAbsMax}, rows.data());
  for (int r = 0; r < kStripRows; ++r) {
    int largest = 0;
    for (int c = 0; c < kDim; ++c)
      largest = std::max(largest, std::abs(result.codes[static_cast<size_t>(r * kDim + c)] - 8));
    EXPECT_EQ(largest, 7);
  }
}

struct Config {
  const CodebookSet* books;
  Bits bits;
  ScaleRule rule;
};

TEST(GainQuantizerTest, EveryTargetAgreesWithTheRow) {
  std::vector<float> weights(kDim);
  for (int c = 0; c < kDim; ++c) weights[static_cast<size_t>(c)] = 1.0f / static_cast<float>(1 + c);
  const Config configs[] = {
      {&LloydMaxCodebooks(), {4, 3, 2, 1, 0, 6, 8, 4}, ScaleRule::kLeastSquares},
      {&LloydMaxCodebooks(), Bits(kTiles, 2), ScaleRule::kUnbiased},
      {&UniformCodebooks(), {1, 2, 3, 4, 6, 8, 0, 0}, ScaleRule::kUnbiased},
      {&SymmetricCodebooks(), Bits(kTiles, 3), ScaleRule::kAbsMax},
      {&LloydMaxCodebooks(), Bits(kTiles, 3), ScaleRule::kNorm},
      {&LloydMaxCodebooks(), Bits(kTiles, 4), ScaleRule::kSameNorm},
      {&LloydMaxCodebooks(), Bits(kTiles, 0), ScaleRule::kLeastSquares},
  };
  const std::vector<float> rows = GaussianRows(kStripRows, 5.0f);
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const Config& config : configs) {
      for (const float* maybe_weights :
           {static_cast<const float*>(nullptr), static_cast<const float*>(weights.data())}) {
        const GainQuantizer q = {config.books, config.bits.data(), kTiles, maybe_weights, config.rule};
        const Result want = ByRow(q, rows.data());
        const Result got = ByKernel(q, rows.data());
        int different = 0;
        for (size_t i = 0; i < want.codes.size(); ++i) {
          EXPECT_LE(std::abs(want.codes[i] - got.codes[i]), 1) << target;
          different += want.codes[i] != got.codes[i];
        }
        EXPECT_LE(different, 2) << target;
        for (size_t r = 0; r < kStripRows; ++r)
          EXPECT_NEAR(got.scales[r], want.scales[r], 1e-4f * want.scales[r]) << target;
      }
    }
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
