#include "codec/parts/codebook.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace kvant {
namespace {

// Published solutions for N(0,1), five digits.
TEST(CodebookTest, LloydMaxMatchesTheTables) {
  constexpr double kMagnitudes[4][8] = {
      {0.79788},
      {0.45278, 1.51042},
      {0.24509, 0.75601, 1.34391, 2.15195},
      {0.12840, 0.38805, 0.65676, 0.94234, 1.25623, 1.61805, 2.06902, 2.73259},
  };
  constexpr double kDistortion[] = {0.36338, 0.11748, 0.034548, 0.009501};
  for (int bits = 1; bits <= 4; ++bits) {
    double magnitudes[8];
    double thresholds[8];
    const double distortion = SolveLloydMax(bits, magnitudes, thresholds);
    EXPECT_NEAR(distortion, kDistortion[bits - 1], 5e-3 * kDistortion[bits - 1]);
    for (int i = 0; i < 1 << (bits - 1); ++i) EXPECT_NEAR(magnitudes[i], kMagnitudes[bits - 1][i], 6e-6) << bits;
  }
}

TEST(CodebookTest, RoundingToLevelsCostsLittle) {
  for (int bits = 1; bits <= 4; ++bits) {
    double magnitudes[8];
    double thresholds[8];
    const double exact = SolveLloydMax(bits, magnitudes, thresholds);
    const double rounded = LloydMaxCodebooks().by_bits[bits].distortion;
    EXPECT_GE(rounded, exact * (1.0 - 1e-6)) << bits;
    EXPECT_LT(rounded, exact * 1.004) << bits;
  }
}

// The step constants for a uniform quantiser of N(0,1), as tabulated by Max (1960).
TEST(CodebookTest, UniformStepsMatchTheTables) {
  constexpr struct {
    int bits;
    double step;
    double distortion;
  } kTable[] = {
      {1, 1.5958, 0.3634}, {2, 0.9957, 0.1188}, {3, 0.5860, 0.03744}, {4, 0.3352, 0.01154}, {6, 0.1041, 0.001040},
  };
  for (const auto& row : kTable) {
    const Codebook& book = UniformCodebooks().by_bits[row.bits];
    EXPECT_NEAR(book.step, row.step, 1e-4) << row.bits;
    EXPECT_NEAR(book.distortion, row.distortion, 1e-3 * row.distortion) << row.bits;
  }
}

TEST(CodebookTest, ErrorsFallWithTheWidth) {
  for (const CodebookSet* set : {&LloydMaxCodebooks(), &UniformCodebooks()}) {
    double last = 1.0001;
    for (const int bits : kCodeWidths) {
      EXPECT_LT(set->by_bits[bits].distortion, last);
      last = set->by_bits[bits].distortion;
    }
    EXPECT_LT(last, 1.2e-4);
  }
}

// Brute force: the code found is the nearest of all values, and codes rise with values.
TEST(CodebookTest, NearestCodeIsNearest) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  for (const CodebookSet* set : {&LloydMaxCodebooks(), &UniformCodebooks()}) {
    for (const int bits : {1, 2, 3, 4, 6, 8}) {
      for (int trial = 0; trial < 500; ++trial) {
        const float value = normal(rng);
        float best = std::abs(value - CodeValue(*set, bits, 0));
        for (int code = 1; code < 1 << bits; ++code) {
          EXPECT_GT(CodeValue(*set, bits, code), CodeValue(*set, bits, code - 1));
          best = std::min(best, std::abs(value - CodeValue(*set, bits, code)));
        }
        const float got = std::abs(value - CodeValue(*set, bits, NearestCode(set->by_bits[bits], value)));
        EXPECT_LE(got, best + 1e-6f) << bits;
      }
    }
  }
}

TEST(CodebookTest, SymmetricCodesHaveAZero) {
  for (const int bits : {2, 3, 4, 8}) {
    EXPECT_EQ(CodeValue(SymmetricCodebooks(), bits, 1 << (bits - 1)), 0.0f);
    EXPECT_EQ(CodeValue(SymmetricCodebooks(), bits, (1 << bits) - 1), static_cast<float>((1 << (bits - 1)) - 1));
  }
}

}  // namespace
}  // namespace kvant
