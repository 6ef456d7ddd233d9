// Readers of blocks whose codes are symbols of a trellis. Two successive places of a channel are one look-up: their windows
// overlap in all but a symbol, so that 6 + bits bits of a run say both.
#pragma once

#include "cuda/block_readers.h"
#include "cuda/run_order.h"

namespace kvant::cuda {

/// Levels by the windows of two successive places.
template <int kBits>
struct TrellisTable {
  static constexpr int kIndexBits = 6 + kBits;
  static constexpr int kEntries = 1 << kIndexBits;
  static constexpr int kBytes = kEntries * kLanes * 4;

  template <class W>
  KVANT_HD static void Fill(const float* levels, int thread, int threads, std::byte* table) {
    FillTable(kEntries, thread, threads, table,
              [levels](int entry) { return W::Pack(levels[entry >> kBits], levels[entry & 63]); });
  }
};

/// A lane's words of successive steps, as many as are whole vectors.
template <int kBits>
struct RunWords {
  static constexpr int kSteps = kBits == 2 ? 2 : 4;
  static constexpr int kWords = kSteps * kBits;
  uint32_t word[kWords];

  KVANT_HD void Load(const std::byte* codes, int first_step, int lane) {
    const std::byte* mine = codes + 16 * lane;
    KVANT_UNROLL
    for (int i = 0; i < kWords; i += 4) {
      const Words4 v = *reinterpret_cast<const Words4*>(mine + 4 * RunWord(kBits, first_step, 0, i));
      KVANT_UNROLL
      for (int j = 0; j < 4; ++j) word[i + j] = v.word[j];
    }
  }
};

/// A run with the newest symbols of the one before it above it.
template <class W, int kBits>
class RunStream {
 public:
  /// `words`, `before`: of the step, where the runs lie.
  KVANT_HD RunStream(const uint32_t* words, int run, const uint32_t* before, int run_before) {
    const WordByte old = RunByteOf(kBits, run_before, 0);
    const WordByte first = RunByteOf(kBits, run, 0);
    if (RunByteOf(kBits, run, 1).word == first.word) {
      const int third = kBits == 2 ? 4 + old.byte : first.byte + 2;
      bits_ = W::Bytes(words[first.word], before[old.word], first.byte, first.byte + 1, third, 4 + old.byte);
    } else {
      const uint32_t low = W::Bytes(words[0], words[1], first.byte, 4 + first.byte, 0, 0);
      const uint32_t high = W::Bytes(words[2], before[old.word], first.byte, 4 + old.byte, 0, 0);
      bits_ = W::Bytes(low, high, 0, 1, 4, 5);
    }
  }
  /// Levels of places 2 `pair` and 2 `pair` + 1 of the run. A product does the rest of the shift and the sum.
  KVANT_HD uint32_t Levels(typename W::Column column, int pair) const {
    const int first = SymbolBit(kBits, 2 * pair + 1);
    const uint32_t mask = TrellisTable<kBits>::kEntries - 1;
    const uint32_t index = W::MaskOr(bits_ >> (first / 8 * 8), mask << first % 8, 0);
    return W::Lookup(column, index, 128u >> first % 8);
  }

 private:
  static_assert(kBits == 2 || kBits == 3);
  uint32_t bits_;
};

/// Calls visit(step, words, before) with this lane's words of every step and those of the lane that has the runs before.
template <class W, int kDim, int kBits, class Visit>
KVANT_HD inline void ForEachRunStep(const std::byte* codes, int lane, int lane_before, Visit visit) {
  using Words = RunWords<kBits>;
  KVANT_UNROLL
  for (int first = 0; first < kDim / kStepChannels; first += Words::kSteps) {
    Words words, before;
    W::Sync();  // keeps the loads below from moving up: registers
    words.Load(codes, first, lane);
    before.Load(codes, first, lane_before);
    KVANT_UNROLL
    for (int s = 0; s < Words::kSteps; ++s) visit(first + s, words.word + s * kBits, before.word + s * kBits);
  }
}
/// Of keys.
KVANT_HD inline int LaneBefore(int lane) { return (lane + kLanes - 4) % kLanes; }

template <class W, int kDim_, int kBits>
struct TrellisKeys {
  static constexpr bool kExact = false;
  static constexpr int kDim = kDim_;
  using Table = TrellisTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kRuns;
  static constexpr BlockOffsets kOffsets = {kDim * kBits * 8 + 2 * kDim + 128, 2 * kDim + 128, 2 * kDim, 0};

  /// query_sealed is the mapped query times the step of the levels.
  KVANT_HD static void Score(const std::byte* block, const std::byte* query_sealed, const std::byte* query_plain,
                             const std::byte* table, int lane, float (&scores)[kUnits][4]) {
    float bias[4] = {};
    MeanScores<W, kDim>(block + kOffsets.shifts, query_plain, lane, lane, bias);
    ChannelWords<kDim> query;
    query.LoadQuery(query_sealed, lane);
    const typename W::Column column = W::ColumnOf(table, lane);
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) scores[u][i] = 0.0f;
    }
    ForEachRunStep<W, kDim, kBits>(block + kOffsets.codes, lane, LaneBefore(lane),
                                   [&](int step, const uint32_t* words, const uint32_t* before) {
                                     StepScores(words, before, &query.word[2 * step], column, scores);
                                   });
    TokenFloats<W> scales;
    scales.Load(block + kOffsets.scales, lane);
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) scores[u][i] = scores[u][i] * scales.value[u][i / 2] + bias[i];
    }
  }

 private:
  /// A look-up gives two tokens of one channel, an operand takes two channels of one token.
  KVANT_HD static void StepScores(const uint32_t* words, const uint32_t* before, const uint32_t* query,
                                  typename W::Column column, float (&scores)[kUnits][4]) {
    const RunStream<W, kBits> runs[kStepRuns] = {
        {words, 0, before, 0}, {words, 1, before, 1}, {words, 2, before, 2}, {words, 3, before, 3}};
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      uint32_t a[4];
      KVANT_UNROLL
      for (int half = 0; half < 2; ++half) {
        const uint32_t even = runs[2 * half].Levels(column, u);
        const uint32_t odd = runs[2 * half + 1].Levels(column, u);
        a[2 * half] = LowHalves<W>(even, odd);
        a[2 * half + 1] = HighHalves<W>(even, odd);
      }
      StepProduct<W>(scores[u], a, query);
    }
  }
};

/// out += values x weights: b are those of a unit, in the order of the look-ups.
template <class W, int kDim, int kBits>
KVANT_HD void TrellisProducts(const std::byte* codes, const std::byte* table, int lane, const uint32_t (&b)[kUnits][2],
                              float (&out)[kDim / kStepChannels][4]) {
  const typename W::Column column = W::ColumnOf(table, lane);
  const auto add = [&](int step, const uint32_t* words, const uint32_t* before) {
    const RunStream<W, kBits> runs[kStepRuns] = {
        {words, 0, before, 1}, {words, 1, words, 0}, {words, 2, before, 3}, {words, 3, words, 2}};
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      const uint32_t a[4] = {runs[0].Levels(column, u), runs[2].Levels(column, u), runs[1].Levels(column, u),
                             runs[3].Levels(column, u)};
      StepProduct<W>(out[step], a, b[u]);
    }
  };
  ForEachRunStep<W, kDim, kBits>(codes, lane, lane / 4 * 4 + (lane + 3) % 4, add);
}

template <class W, int kDim_, int kBits>
struct TrellisValues {
  static constexpr int kDim = kDim_;
  using Table = TrellisTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kRuns;
  static constexpr BlockOffsets kOffsets = {kDim * kBits * 8 + 128, 128, 0, -1};
  static constexpr int kSteps = kDim / kStepChannels;
  using Layout = PlainScores;
  static constexpr int kShifts = 1;
  KVANT_HD static constexpr float OutGain(int, int) { return 1.0f; }

  /// Weights are paired as look-ups are: the halves of a word are the rows t and t + 8, two successive tokens.
  KVANT_HD static void Accumulate(const std::byte* block, const std::byte* table, int lane,
                                  const float (&weights)[kUnits][4], float (&out)[kSteps][4], float (&)[kShifts][2]) {
    TokenFloats<W> scales;
    scales.Load(block + kOffsets.scales, lane);
    uint32_t b[kUnits][2];
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      uint32_t rows[2];
      WeightOperand<W>(weights[u], scales.value[u][0] * kWeightGain, scales.value[u][1] * kWeightGain, rows);
      b[u][0] = LowHalves<W>(rows[0], rows[1]);
      b[u][1] = HighHalves<W>(rows[0], rows[1]);
    }
    TrellisProducts<W, kDim, kBits>(block + kOffsets.codes, table, lane, b, out);
  }
};

// ---- four columns: the two tokens of a look-up are two columns apart instead of two registers, see PairedScores

/// Puts a half where the tokens of a lane's column need it: for the first token of pairs low, for the second high, zero beside it.
struct PairSelectors {
  uint32_t low;   ///< of the low half
  uint32_t high;  ///< of the high half

  KVANT_HD explicit PairSelectors(int lane) : low(lane < 16 ? 0x4410 : 0x1044), high(lane < 16 ? 0x4432 : 0x3244) {}
};

template <class W, int kDim_, int kBits>
struct PairedTrellisKeys {
  static constexpr bool kExact = false;
  static constexpr int kDim = kDim_;
  using Table = TrellisTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kRuns;
  static constexpr BlockOffsets kOffsets = TrellisKeys<W, kDim_, kBits>::kOffsets;

  /// As TrellisKeys.
  KVANT_HD static void Score(const std::byte* block, const std::byte* query_sealed, const std::byte* query_plain,
                             const std::byte* table, int lane, float (&scores)[PairedScores::kGroups][4]) {
    const int query_lane = lane % 16;  // both tokens of a pair have the same queries
    float bias[4] = {};
    MeanScores<W, kDim>(block + kOffsets.shifts, query_plain, query_lane, lane, bias);
    ChannelWords<kDim> query;
    query.LoadQuery(query_sealed, query_lane);
    const typename W::Column column = W::ColumnOf(table, lane);
    const PairSelectors select(lane);
    KVANT_UNROLL
    for (int g = 0; g < PairedScores::kGroups; ++g) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) scores[g][i] = 0.0f;
    }
    ForEachRunStep<W, kDim, kBits>(block + kOffsets.codes, lane, LaneBefore(lane),
                                   [&](int step, const uint32_t* words, const uint32_t* before) {
                                     StepScores(words, before, &query.word[2 * step], column, select, scores);
                                   });
    TokenFloats<W> scales;
    scales.Load(block + kOffsets.scales, lane);
    KVANT_UNROLL
    for (int g = 0; g < PairedScores::kGroups; ++g) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float(&pair)[2] = scales.value[2 * g + i / 2];
        scores[g][i] = scores[g][i] * (lane % 4 < 2 ? pair[0] : pair[1]) + bias[i % 2];
      }
    }
  }

 private:
  /// Rows of A are pairs of tokens, columns channels with either token.
  KVANT_HD static void StepScores(const uint32_t* words, const uint32_t* before, const uint32_t* query,
                                  typename W::Column column, const PairSelectors& select,
                                  float (&scores)[PairedScores::kGroups][4]) {
    const RunStream<W, kBits> runs[kStepRuns] = {
        {words, 0, before, 0}, {words, 1, before, 1}, {words, 2, before, 2}, {words, 3, before, 3}};
    KVANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint32_t b[2] = {W::Select(query[half], select.low), W::Select(query[half], select.high)};
      KVANT_UNROLL
      for (int g = 0; g < PairedScores::kGroups; ++g) {
        const uint32_t a[4] = {runs[2 * half].Levels(column, 2 * g), runs[2 * half].Levels(column, 2 * g + 1),
                               runs[2 * half + 1].Levels(column, 2 * g), runs[2 * half + 1].Levels(column, 2 * g + 1)};
        StepProduct<W>(scores[g], a, b);
      }
    }
  }
};

template <class W, int kDim_, int kBits>
struct PairedTrellisValues {
  static constexpr int kDim = kDim_;
  using Table = TrellisTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kRuns;
  static constexpr BlockOffsets kOffsets = TrellisValues<W, kDim_, kBits>::kOffsets;
  static constexpr int kSteps = kDim / kStepChannels;
  using Layout = PairedScores;
  static constexpr int kShifts = 1;
  KVANT_HD static constexpr float OutGain(int, int) { return 1.0f; }

  KVANT_HD static void Accumulate(const std::byte* block, const std::byte* table, int lane,
                                  const float (&weights)[PairedScores::kGroups][4], float (&out)[kSteps][4],
                                  float (&)[kShifts][2]) {
    TokenFloats<W> scales;
    scales.Load(block + kOffsets.scales, lane);
    const PairSelectors select(lane);
    uint32_t b[kUnits][2];
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      const float scale = (lane % 4 < 2 ? scales.value[u][0] : scales.value[u][1]) * kWeightGain;
      const float* w = &weights[u / 2][u % 2 * 2];
      const uint32_t pairs = W::Transpose(W::Pack(w[0] * scale, w[1] * scale));
      b[u][0] = W::Select(pairs, select.low);
      b[u][1] = W::Select(pairs, select.high);
    }
    TrellisProducts<W, kDim, kBits>(block + kOffsets.codes, table, lane, b, out);
  }
};

}  // namespace kvant::cuda
