// How a warp gets the operands of its matrix products from a block in fragment order: readers of keys and of values, one
// per kind of code. W holds the warp's instructions: simt.cuh on the device, simt_host.h in tests.
//
// All members are for one lane; everything is unrolled, so indices of register arrays are constants.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.h"
#include "cuda/attend_params.h"
#include "cuda/code_units.h"
#include "cuda/fragment_order.h"

namespace kvant::cuda {

// ---- parameters

/// What a lane needs per channel: words [step][2], see ChannelHalf.
template <int kDim>
struct ChannelWords {
  static constexpr int kSteps = kDim / kStepChannels;
  uint32_t word[2 * kSteps];

  KVANT_HD void LoadParams(const std::byte* halves, int lane) { Load<4>(halves, lane % 4); }
  KVANT_HD void LoadQuery(const std::byte* halves, int lane) { Load<kLanes>(halves, lane); }

 private:
  template <int kRows>
  KVANT_HD void Load(const std::byte* halves, int row) {
    const auto* from = reinterpret_cast<const Words4*>(halves) + row;
    KVANT_UNROLL
    for (int i = 0; i < kSteps / 2; ++i) {
      const Words4 v = from[i * kRows];
      KVANT_UNROLL
      for (int j = 0; j < 4; ++j) word[4 * i + j] = v.word[j];
    }
  }
};

/// Token parameters of a lane as floats: [unit][2], see TokenParam.
template <class W>
struct TokenFloats {
  float value[kUnits][2];

  KVANT_HD void Load(const std::byte* halves, int lane) {
    const Words4 v = *reinterpret_cast<const Words4*>(halves + lane / 4 * 16);
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) W::Unpack(v.word[u], &value[u][0], &value[u][1]);
  }
};

// ---- queries

KVANT_HD constexpr int PlainQueryBytes(int dim) { return 2 * kTileColumns * dim; }

/// Of a tile: as they are, then in the form that Keys reads, halves as well unless Keys says otherwise.
template <class Keys>
KVANT_HD constexpr int QueryBytes() {
  if constexpr (requires { Keys::kQueryBytes; }) {
    return PlainQueryBytes(Keys::kDim) + Keys::kQueryBytes;
  } else {
    return 2 * PlainQueryBytes(Keys::kDim);
  }
}

/// What is left to do for sealed keys when the queries of a tile are stored in both forms: nothing, unless Keys says otherwise.
/// Constants are loaded before pages are, behind which they would wait for long.
template <class Keys>
struct QueryMap {
  struct Constants {
    KVANT_HD Constants(const std::byte*, int, int) {}
  };
  KVANT_HD static void Map(const Constants&, const std::byte*, int, int, int, int, std::byte*) {}
};
template <class Keys>
requires requires { typename Keys::Queries; }
struct QueryMap<Keys> : Keys::Queries {};

// ---- keys: scores of a page, C of the products: [unit][4] = tokens g, g, g+8, g+8 and heads 2t, 2t+1, 2t, 2t+1

/// Of two pairs of halves the low ones, and the high ones.
template <class W>
KVANT_HD inline uint32_t LowHalves(uint32_t a, uint32_t b) {
  return W::Bytes(a, b, 0, 1, 4, 5);
}
template <class W>
KVANT_HD inline uint32_t HighHalves(uint32_t a, uint32_t b) {
  return W::Bytes(a, b, 2, 3, 6, 7);
}

/// S += A of one step x B.
template <class W>
KVANT_HD inline void StepProduct(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b) {
  W::Product(c, a, b[0], b[1]);
}

/// A sum over steps in two chains of products, because the next product of a chain waits for the one before.
struct TwoChains {
  float part[2][4] = {};

  KVANT_HD float Sum(int i) const { return part[0][i] + part[1][i]; }
};

/// sum over channels of a per-channel parameter and the query: the same for all tokens.
template <class W, int kDim>
KVANT_HD inline void ShiftProduct(const ChannelWords<kDim>& shifts, const ChannelWords<kDim>& query, float (&c)[4]) {
  KVANT_UNROLL
  for (int s = 0; s < kDim / kStepChannels; ++s) {
    const uint32_t a[4] = {shifts.word[2 * s], shifts.word[2 * s], shifts.word[2 * s + 1], shifts.word[2 * s + 1]};
    StepProduct<W>(c, a, &query.word[2 * s]);
  }
}

/// Adds what page means add to the scores of all tokens. `query_lane`: whose query words this lane has.
template <class W, int kDim>
KVANT_HD inline void MeanScores(const std::byte* means, const std::byte* query_plain, int query_lane, int lane,
                                float (&bias)[4]) {
  ChannelWords<kDim> query, shifts;
  query.LoadQuery(query_plain, query_lane);
  shifts.LoadParams(means, lane);
  ShiftProduct<W, kDim>(shifts, query, bias);
  W::Sync();  // keeps later loads from moving up: registers
}

/// kGroup: tokens of a channel that share scale and shift.
template <class W, int kDim_, int kBits, int kGroup = kPageTokens>
struct UniformKeys {
  static constexpr bool kExact = false;
  static constexpr int kDim = kDim_;
  using Table = NoTable;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  static constexpr int kCodes = kDim * kBits * 8;
  static constexpr int kGroups = kPageTokens / kGroup;
  static constexpr int kParamBytes = 2 * kDim * kGroups;
  static constexpr BlockOffsets kOffsets = {kCodes + 2 * kParamBytes, 0, kCodes, kCodes + kParamBytes};
  static constexpr int kSteps = kDim / kStepChannels;

  /// query_sealed is 4 q, query_plain q. The scale of a channel goes to the query; what the bases of the codes add is taken
  /// off by the same products with the bases as operand.
  KVANT_HD static void Score(const std::byte* block, const std::byte* query_sealed, const std::byte* query_plain,
                             const std::byte*, int lane, float (&scores)[kUnits][4]) {
    KVANT_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      ChannelWords<kDim> query, params;
      TwoChains first;
      query.LoadQuery(query_plain, lane);
      params.LoadParams(block + kOffsets.shifts + 2 * kDim * g, lane);
      ShiftProduct<W, kDim>(params, query, first.part[0]);
      W::Sync();  // keeps the loads below from moving up: registers
      query.LoadQuery(query_sealed, lane);
      params.LoadParams(block + kOffsets.scales + 2 * kDim * g, lane);
      KVANT_UNROLL
      for (int i = 0; i < 2 * kSteps; ++i) query.word[i] = W::Multiply(query.word[i], params.word[i]);
      KVANT_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        constexpr uint32_t kSign = 0x80008000u;
        const uint32_t a[4] = {Unit::Base(s, 0) | kSign, Unit::Base(s, 1) | kSign, Unit::Base(s, 2) | kSign,
                               Unit::Base(s, 3) | kSign};
        StepProduct<W>(first.part[s % 2], a, &query.word[2 * s]);
      }
      KVANT_UNROLL
      for (int u = g * kUnits / kGroups; u < (g + 1) * kUnits / kGroups; ++u) {
        UnitScores(block + kOffsets.codes, u, lane, query, first, scores[u]);
      }
    }
  }

 private:
  using Unit = UniformUnit<W, kDim, kBits>;

  KVANT_HD static void UnitScores(const std::byte* codes, int u, int lane, const ChannelWords<kDim>& query,
                                  const TwoChains& first, float (&scores)[4]) {
    Unit unit;
    W::Sync();
    unit.Load(codes, u, lane);
    TwoChains sum = first;
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t a[4] = {unit.Pair(s, 0), unit.Pair(s, 1), unit.Pair(s, 2), unit.Pair(s, 3)};
      StepProduct<W>(sum.part[s % 2], a, &query.word[2 * s]);
    }
    KVANT_UNROLL
    for (int i = 0; i < 4; ++i) scores[i] = sum.Sum(i);
  }
};

/// kCentred: with page means.
template <class W, int kDim_, int kBits, bool kCentred = true>
struct LevelKeys {
  static constexpr bool kExact = false;
  static constexpr int kDim = kDim_;
  using Table = PairTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  static constexpr int kMeanBytes = kCentred ? 2 * kDim : 0;
  static constexpr BlockOffsets kOffsets = {kDim * kBits * 8 + kMeanBytes + 128, kMeanBytes + 128, kMeanBytes,
                                            kCentred ? 0 : -1};
  static constexpr int kSteps = kDim / kStepChannels;

  /// query_sealed is the mapped query times the step of the levels.
  KVANT_HD static void Score(const std::byte* block, const std::byte* query_sealed, const std::byte* query_plain,
                             const std::byte* table, int lane, float (&scores)[kUnits][4]) {
    float bias[4] = {};
    if constexpr (kCentred) MeanScores<W, kDim>(block + kOffsets.shifts, query_plain, lane, lane, bias);
    ChannelWords<kDim> query;
    query.LoadQuery(query_sealed, lane);
    const typename W::Column column = W::ColumnOf(table, lane);
    TokenFloats<W> scales;
    scales.Load(block + kOffsets.scales, lane);
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      LevelUnit<W, kDim, kBits> unit;
      W::Sync();
      unit.Load(block + kOffsets.codes, u, lane);
      TwoChains sum;
      KVANT_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        const uint32_t a[4] = {unit.Pair(column, s, 0), unit.Pair(column, s, 1), unit.Pair(column, s, 2),
                               unit.Pair(column, s, 3)};
        StepProduct<W>(sum.part[s % 2], a, &query.word[2 * s]);
      }
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) scores[u][i] = sum.Sum(i) * scales.value[u][i / 2] + bias[i];
    }
  }
};

/// Blocks in global memory, read without a stop in shared memory: for the few exact pages, and for codec `raw`.
template <class W, int kDim_>
struct ExactKeys {
  static constexpr bool kExact = true;
  static constexpr int kDim = kDim_;
  using Table = NoTable;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  static constexpr BlockOffsets kOffsets = {kDim * 128, 0, -1, -1};
  static constexpr int kSteps = kDim / kStepChannels;

  KVANT_HD static void Score(const std::byte* block, const std::byte*, const std::byte* query_plain, const std::byte*,
                             int lane, float (&scores)[kUnits][4]) {
    ChannelWords<kDim> query;
    query.LoadQuery(query_plain, lane);
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      PlaneWords<kDim, 16> unit;
      W::Sync();  // or all units are loaded at once, which takes too many registers
      unit.Load(block, u, lane);
      UnitScores(unit, query, scores[u]);
    }
  }
  KVANT_HD static void UnitScores(const PlaneWords<kDim, 16>& unit, const ChannelWords<kDim>& query,
                                  float (&scores)[4]) {
    KVANT_UNROLL
    for (int i = 0; i < 4; ++i) scores[i] = 0.0f;
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t a[4] = {unit.word[4 * s], unit.word[4 * s + 1], unit.word[4 * s + 2], unit.word[4 * s + 3]};
      StepProduct<W>(scores, a, &query.word[2 * s]);
    }
  }
};

// ---- values: out [step][4] += page x weights; rows are channels g, g, g+8, g+8 of the step, heads 2t, 2t+1, 2t, 2t+1.
// Weights have the layout of scores. `shift` collects what is the same for all channels of a group.

/// Weights of one unit as the B operand: rows are tokens.
template <class W>
KVANT_HD inline void WeightOperand(const float (&w)[4], float scale0, float scale1, uint32_t (&b)[2]) {
  b[0] = W::Transpose(W::Pack(w[0] * scale0, w[1] * scale0));
  b[1] = W::Transpose(W::Pack(w[2] * scale1, w[3] * scale1));
}

/// Groups of channels with a shift of their own. Values have a register for each, to be summed over the lanes of a column, or
/// kShiftRows of them in one register: that of group g is with the lanes g * 4 and on.
template <class Values>
KVANT_HD constexpr int ShiftGroups() {
  if constexpr (requires { Values::kShiftRows; }) {
    return Values::kShiftRows;
  } else {
    return Values::kShifts;
  }
}

/// kGroup: channels of a token that share scale and shift.
template <class W, int kDim_, int kBits, int kGroup = 128>
struct UniformValues {
  static constexpr int kDim = kDim_;
  using Table = NoTable;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  using Unit = UniformUnit<W, kDim, kBits>;
  static constexpr int kSteps = kDim / kStepChannels;
  static constexpr int kGroups = kDim > kGroup ? kDim / kGroup : 1;
  static constexpr int kCodes = kDim * kBits * 8;
  static constexpr BlockOffsets kOffsets = {kCodes + 256 * kGroups, 0, kCodes, kCodes + 128 * kGroups};
  using Layout = PlainScores;
  static constexpr int kShifts = kGroups;  ///< sums per head
  /// What makes quarters of codes of out[step][i].
  KVANT_HD static constexpr float OutGain(int step, int i) {
    return 4194304.0f / static_cast<float>(1 << Unit::Bit(step, i / 2));
  }

  KVANT_HD static void Accumulate(const std::byte* block, const std::byte*, int lane, const float (&weights)[kUnits][4],
                                  float (&out)[kSteps][4], float (&shift)[kShifts][2]) {
    constexpr int kGroupSteps = kSteps / kGroups;
    Words4 scales[kGroups];  // halves: as floats of several groups they would take too many registers
    KVANT_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      TokenFloats<W> mins;
      mins.Load(block + kOffsets.shifts + 128 * g, lane);
      scales[g] = *reinterpret_cast<const Words4*>(block + kOffsets.scales + 128 * g + lane / 4 * 16);
      KVANT_UNROLL
      for (int u = 0; u < kUnits; ++u) {
        float scale[2];
        W::Unpack(scales[g].word[u], &scale[0], &scale[1]);
        KVANT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float middle = mins.value[u][i / 2] + scale[i / 2] * kMiddle;
          shift[g][i % 2] += weights[u][i] * middle;
        }
      }
    }
    float sums[kGroups][4] = {};
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      Unit unit;
      W::Sync();
      unit.Load(block + kOffsets.codes, u, lane);
      KVANT_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        float scale[2];
        W::Unpack(scales[g].word[u], &scale[0], &scale[1]);
        uint32_t b[2];
        WeightOperand<W>(weights[u], scale[0] * kWeightGain, scale[1] * kWeightGain, b);
        constexpr uint32_t kOnes[4] = {0x3C003C00u, 0x3C003C00u, 0x3C003C00u, 0x3C003C00u};
        StepProduct<W>(sums[g], kOnes, b);
        KVANT_UNROLL
        for (int s = g * kGroupSteps; s < (g + 1) * kGroupSteps; ++s) {
          const uint32_t a[4] = {unit.SmallPair(s, 0), unit.SmallPair(s, 1), unit.SmallPair(s, 2),
                                 unit.SmallPair(s, 3)};
          StepProduct<W>(out[s], a, b);
        }
      }
    }
    // Codes are centred page by page: what the products' sums lose is in proportion to their size, and would add up over
    // thousands of tokens while the output does not.
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) out[s][i] -= sums[s / kGroupSteps][i] * (kMiddle / 4 / OutGain(s, i));
    }
  }

 private:
  static constexpr float kMiddle = static_cast<float>(1 << (kBits - 1));
};

template <class W, int kDim_, int kBits>
struct LevelValues {
  static constexpr int kDim = kDim_;
  using Table = PairTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  static constexpr BlockOffsets kOffsets = {kDim * kBits * 8 + 128, 128, 0, -1};
  static constexpr int kSteps = kDim / kStepChannels;
  using Layout = PlainScores;
  static constexpr int kShifts = 1;
  KVANT_HD static constexpr float OutGain(int, int) { return 1.0f; }

  KVANT_HD static void Accumulate(const std::byte* block, const std::byte* table, int lane,
                                  const float (&weights)[kUnits][4], float (&out)[kSteps][4], float (&)[kShifts][2]) {
    const typename W::Column column = W::ColumnOf(table, lane);
    TokenFloats<W> scales;
    scales.Load(block + kOffsets.scales, lane);
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      LevelUnit<W, kDim, kBits> unit;
      W::Sync();
      unit.Load(block + kOffsets.codes, u, lane);
      uint32_t b[2];
      WeightOperand<W>(weights[u], scales.value[u][0] * kWeightGain, scales.value[u][1] * kWeightGain, b);
      KVANT_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        const uint32_t a[4] = {unit.Pair(column, s, 0), unit.Pair(column, s, 1), unit.Pair(column, s, 2),
                               unit.Pair(column, s, 3)};
        StepProduct<W>(out[s], a, b);
      }
    }
  }
};

template <class W, int kDim_>
struct ExactValues {
  static constexpr int kDim = kDim_;
  using Table = NoTable;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  static constexpr BlockOffsets kOffsets = {kDim * 128, 0, -1, -1};
  static constexpr int kSteps = kDim / kStepChannels;
  using Layout = PlainScores;
  static constexpr int kShifts = 1;
  KVANT_HD static constexpr float OutGain(int, int) { return 1.0f; }

  KVANT_HD static void Accumulate(const std::byte* block, const std::byte*, int lane, const float (&weights)[kUnits][4],
                                  float (&out)[kSteps][4], float (&)[kShifts][2]) {
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      PlaneWords<kDim, 16> unit;
      W::Sync();  // or all units are loaded at once, which takes too many registers
      unit.Load(block, u, lane);
      AddUnit(unit, weights[u], out);
    }
  }
  KVANT_HD static void AddUnit(const PlaneWords<kDim, 16>& unit, const float (&weights)[4], float (&out)[kSteps][4]) {
    uint32_t b[2];
    WeightOperand<W>(weights, kWeightGain, kWeightGain, b);
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t a[4] = {unit.word[4 * s], unit.word[4 * s + 1], unit.word[4 * s + 2], unit.word[4 * s + 3]};
      StepProduct<W>(out[s], a, b);
    }
  }
};

}  // namespace kvant::cuda
