#include "codec/parts/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "base/simd_target.h"
#include "codec/parts/strip.h"
#include "codec/test_rows.h"

namespace kvant {
namespace {

constexpr int kDims[] = {16, 32, 48, 64, 80, 96, 128, 192, 256};

std::vector<float> GaussianRow(int dim, unsigned seed) {
  std::vector<float> row(static_cast<size_t>(dim));
  FillNormal(seed, row);
  return row;
}

double Energy(const std::vector<float>& row) {
  double sum = 0.0;
  for (const float v : row) sum += static_cast<double>(v) * v;
  return sum;
}

TEST(HadamardTest, IsWalshMatrixTimesSigns) {
  for (const int channel : {0, 1, 5, 15}) {
    std::vector<float> row(16, 0.0f);
    row[static_cast<size_t>(channel)] = 1.0f;
    HadamardRow(16, row.data());
    for (int i = 0; i < 16; ++i) {
      const int parity = std::popcount(static_cast<unsigned>(i & channel)) % 2;
      EXPECT_FLOAT_EQ(row[static_cast<size_t>(i)], HadamardSign(channel) * (parity ? -0.25f : 0.25f));
    }
  }
}

TEST(HadamardTest, SignsAreBalanced) {
  float sum = 0.0f;
  for (int i = 0; i < 256; ++i) sum += HadamardSign(i);
  EXPECT_LT(std::abs(sum), 32.0f);  // two standard deviations of 256 fair coins
}

TEST(HadamardTest, IsOrthogonal) {
  for (const int dim : kDims) {
    const std::vector<float> row = GaussianRow(dim, 7);
    std::vector<float> mapped = row;
    HadamardRow(dim, mapped.data());
    EXPECT_NEAR(Energy(mapped) / Energy(row), 1.0, 1e-5) << dim;
    InverseHadamardRow(dim, mapped.data());
    for (int c = 0; c < dim; ++c) EXPECT_NEAR(mapped[static_cast<size_t>(c)], row[static_cast<size_t>(c)], 2e-6) << dim;
  }
}

// One channel alone must end up in nearly all channels, wherever it stands.
TEST(HadamardTest, SpreadsEveryChannel) {
  for (const int dim : kDims) {
    for (int channel = 0; channel < dim; ++channel) {
      std::vector<float> row(static_cast<size_t>(dim), 0.0f);
      row[static_cast<size_t>(channel)] = 1.0f;
      HadamardRow(dim, row.data());
      float max = 0.0f;
      for (const float v : row) max = std::max(max, std::abs(v));
      EXPECT_LT(max * max, 0.2f) << dim << " channel " << channel;
    }
  }
}

TEST(HadamardTest, EveryTargetGivesTheSameBits) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const int dim : kDims) {
      std::vector<float> rows(static_cast<size_t>(dim * kStripRows));
      for (int r = 0; r < kStripRows; ++r) {
        const std::vector<float> row = GaussianRow(dim, static_cast<unsigned>(r));
        std::copy(row.begin(), row.end(), rows.begin() + r * dim);
      }
      for (const bool forward : {true, false}) {
        Strip strip;
        LoadStrip(rows.data(), static_cast<size_t>(dim), kStripRows, dim, strip.values);
        (forward ? GetHadamardKernels().forward : GetHadamardKernels().inverse)(dim, strip.values);
        std::vector<float> got(rows.size());
        StoreStrip(strip.values, kStripRows, dim, static_cast<size_t>(dim), got.data());
        std::vector<float> want = rows;
        for (int r = 0; r < kStripRows; ++r) {
          forward ? HadamardRow(dim, want.data() + r * dim) : InverseHadamardRow(dim, want.data() + r * dim);
        }
        EXPECT_EQ(got, want) << target << " dim " << dim;
        if (dim % 16 != 0) continue;
        got = rows;
        (forward ? GetHadamardKernels().forward_rows : GetHadamardKernels().inverse_rows)(dim, kStripRows, got.data());
        EXPECT_EQ(got, want) << target << " rows, dim " << dim;
      }
    }
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
