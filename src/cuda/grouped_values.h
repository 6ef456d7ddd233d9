// Reader of uniform values whose groups of channels are small: as in UniformValues, but what a group costs is kept low. Weights
// become operands once per page, and are multiplied with a group's scales there; the least values of all groups are rows of
// one product. Codes are not centred: a page's products are summed apart from those of the pages before, so that nothing large
// meets anything small.
#pragma once

#include "cuda/block_readers.h"

namespace kvant::cuda {

/// Parameters of a row of 64 tokens in the order of TokenPairParam: words [unit][2], those of the operands' columns.
struct TokenPairWords {
  uint32_t word[2 * kUnits];

  KVANT_HD void Load(const std::byte* halves, int lane) {
    const auto* from = reinterpret_cast<const Words4*>(halves) + lane % 4 * 2;
    KVANT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const Words4 v = from[i];
      KVANT_UNROLL
      for (int j = 0; j < 4; ++j) word[4 * i + j] = v.word[j];
    }
  }
};

/// kGroup: channels of a token that share scale and shift.
template <class W, int kDim_, int kBits, int kGroup>
struct GroupedValues {
  static constexpr int kDim = kDim_;
  using Table = NoTable;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  using Layout = PlainScores;
  using Plain = UniformValues<W, kDim, kBits, kGroup>;
  using Unit = typename Plain::Unit;
  static constexpr int kSteps = Plain::kSteps;
  static constexpr int kGroups = Plain::kGroups;
  static constexpr BlockOffsets kOffsets = Plain::kOffsets;
  static constexpr int kShifts = 1;
  static constexpr int kShiftRows = kGroups;
  static_assert(kGroups > 1 && kGroups <= 8);
  KVANT_HD static constexpr float OutGain(int step, int i) { return Plain::OutGain(step, i); }

  KVANT_HD static void Accumulate(const std::byte* block, const std::byte*, int lane, const float (&weights)[kUnits][4],
                                  float (&out)[kSteps][4], float (&shift)[kShifts][2]) {
    uint32_t b[2 * kUnits];
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      uint32_t unit[2];
      WeightOperand<W>(weights[u], kWeightGain, kWeightGain, unit);
      b[2 * u] = unit[0];
      b[2 * u + 1] = unit[1];
    }
    AddLeast(block + kOffsets.shifts, lane, b, shift);
    KVANT_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      TokenPairWords scaled;
      scaled.Load(block + kOffsets.scales + 128 * g, lane);
      KVANT_UNROLL
      for (int i = 0; i < 2 * kUnits; ++i) scaled.word[i] = W::Multiply(scaled.word[i], b[i]);
      AddGroup(block + kOffsets.codes, g, lane, scaled, out);
    }
  }

 private:
  /// Rows of A are groups; those beyond the last are others again, which nobody reads.
  KVANT_HD static void AddLeast(const std::byte* rows, int lane, const uint32_t (&b)[2 * kUnits],
                                float (&shift)[kShifts][2]) {
    TokenPairWords least;
    least.Load(rows + 128 * (lane / 4 % kGroups), lane);
    float sum[4] = {};
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      const uint32_t a[4] = {least.word[2 * u], 0, least.word[2 * u + 1], 0};
      StepProduct<W>(sum, a, &b[2 * u]);
    }
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) shift[0][h] += sum[h] * (1.0f / kWeightGain);
  }

  KVANT_HD static void AddGroup(const std::byte* codes, int g, int lane, const TokenPairWords& scaled,
                                float (&out)[kSteps][4]) {
    constexpr int kGroupSteps = kSteps / kGroups;
    float sums[kGroupSteps][4] = {};
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      Unit unit;
      unit.Load(codes, u, lane);
      KVANT_UNROLL
      for (int i = 0; i < kGroupSteps; ++i) {
        const int s = g * kGroupSteps + i;
        const uint32_t a[4] = {unit.SmallPair(s, 0), unit.SmallPair(s, 1), unit.SmallPair(s, 2), unit.SmallPair(s, 3)};
        StepProduct<W>(sums[i], a, &scaled.word[2 * u]);
      }
    }
    KVANT_UNROLL
    for (int i = 0; i < kGroupSteps; ++i) {
      KVANT_UNROLL
      for (int j = 0; j < 4; ++j) out[g * kGroupSteps + i][j] += sums[i][j];
    }
  }
};

}  // namespace kvant::cuda
