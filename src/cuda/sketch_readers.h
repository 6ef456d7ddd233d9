// Readers of keys that are signs of a sketch. Nothing is unpacked: words of signs are operands as they lie, and the sketch of
// a query is bit planes (sketch_queries.h).
//
// Outlier channels of 32 tokens have signs of their own, and do not belong to the row that the others are of. Both signs give
// by products with columns of S what those channels would decode to; an ordinary product with the query takes off the one and
// adds the other.
#pragma once

#include "cuda/sketch_queries.h"

namespace kvant::cuda {

/// Signs of one unit, all chunks of the sketch.
template <int kBits>
struct SignUnit {
  static constexpr int kChunks = SketchChunks(kBits);
  uint32_t word[kChunks][4];

  KVANT_HD void Load(const std::byte* signs, int unit, int lane) {
    KVANT_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      const std::byte* from = signs + 4 * SignWord(kBits, unit, c, lane, 0);
      if constexpr (SignWords(kBits) == 4) {
        const Words4 v = *reinterpret_cast<const Words4*>(from);
        KVANT_UNROLL
        for (int i = 0; i < 4; ++i) word[c][i] = v.word[i];
      } else {
        const auto* half = reinterpret_cast<const uint32_t*>(from);
        word[c][0] = half[0];
        word[c][1] = half[1];
        word[c][2] = word[c][3] = 0;  // whatever the operand has there
      }
    }
  }
};

/// Sums of signs' bits times integers, of several units at once, plus kFloatBits. A digit has four units' weight of the next: its upper plane
/// is multiplied twice, which is cheaper than to shift what single planes give.
template <class W, int kBits, int kCount>
struct SignSums {
  int32_t sum[kCount][4];

  /// load(chunk, digit) gives the digit's four words. kDigits: of a column; where a number has two columns (kSplit), the
  /// sign is in the upper one, which is odd.
  template <int kDigits, bool kSplit, class Load>
  KVANT_HD void Add(const SignUnit<kBits> (&units)[kCount], Load load) {
    KVANT_UNROLL
    for (int digit = kDigits - 1; digit >= 0; --digit) {
      Words4 planes[SignUnit<kBits>::kChunks];
      KVANT_UNROLL
      for (int c = 0; c < SignUnit<kBits>::kChunks; ++c) planes[c] = load(c, digit);
      const bool top = digit == kDigits - 1;
      if (!top) Shift<kSplit>(digit == 0);
      KVANT_UNROLL
      for (int repeat = 0; repeat < (top ? 1 : 2); ++repeat) Multiply(units, planes, 0, top);
      if (top) {
        KVANT_UNROLL
        for (int u = 0; u < kCount; ++u) {
          KVANT_UNROLL
          for (int i = 0; i < 4; ++i) sum[u][i] *= kSplit && i % 2 == 0 ? 2 : -2;
        }
      }
      Multiply(units, planes, 2, false);
    }
  }

 private:
  template <bool kSplit>
  KVANT_HD void Shift(bool last) {
    KVANT_UNROLL
    for (int u = 0; u < kCount; ++u) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) sum[u][i] = sum[u][i] * 4 + (last && !(kSplit && i % 2 == 1) ? kFloatBits : 0);
    }
  }
  KVANT_HD void Multiply(const SignUnit<kBits> (&units)[kCount], const Words4 (&planes)[SignUnit<kBits>::kChunks],
                         int first, bool clear) {
    KVANT_UNROLL
    for (int u = 0; u < kCount; ++u) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) sum[u][i] = clear ? 0 : sum[u][i];
      KVANT_UNROLL
      for (int c = 0; c < SignUnit<kBits>::kChunks; ++c) {
        W::SignProduct(sum[u], units[u].word[c], planes[c].word[first], planes[c].word[first + 1]);
      }
    }
  }
};

/// Streams of a block with outliers beyond those of BlockOffsets.
struct OutlierOffsets {
  int32_t codes;
  int32_t scales;
  int32_t channels;
};

/// kOutlierBits: 0 without outliers.
template <class W, int kDim_, int kBits, int kOutlierBits = 0>
struct SketchKeys {
  static constexpr bool kExact = false;
  static constexpr int kDim = kDim_;
  using Table = NoTable;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;
  static constexpr int kOutliers = 8;  ///< the columns of a product
  static constexpr int kPart = 8 * kBits + 128;
  static constexpr OutlierOffsets kOutlierOffsets = {kPart, kPart + 8 * kOutlierBits, kPart + 8 * kOutlierBits + 128};
  static constexpr int kBytes = kOutlierBits == 0 ? kPart : kOutlierOffsets.channels + 2 * kOutliers;
  static constexpr BlockOffsets kOffsets = {(kBytes + 63) / 64 * 64, 0, 8 * kBits, -1};

  using Queries = SketchQueries<W, kDim, kBits>;
  static constexpr int kQueryBytes = Queries::kBytes;

  KVANT_HD static void Score(const std::byte* block, const std::byte* query_sealed, const std::byte* query_plain,
                             const std::byte*, int lane, float (&scores)[kUnits][4]) {
    const auto* header = reinterpret_cast<const SketchHeader*>(query_sealed);
    SignUnit<kBits> units[kUnits];
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) units[u].Load(block + kOffsets.codes, u, lane);
    const auto* planes = reinterpret_cast<const Words4*>(query_sealed + Queries::kPlanesByteOfs) + lane;
    const auto digit_of = [planes](int chunk, int digit) { return planes[DigitVector(chunk, digit, 0)]; };
    if (header->halves == 2) {
      SplitScores(*header, units, block + kOffsets.scales, digit_of, lane, scores);
    } else {
      WholeScores(*header, units, block + kOffsets.scales, digit_of, lane, scores);
    }
    if constexpr (kOutlierBits > 0) {
      KVANT_UNROLL
      for (int g = 0; g < kUnits / kGroupUnits; ++g) {
        W::Sync();  // keeps loads from moving up: registers
        AddOutliers(block, *header, query_plain, g, lane, scores);
      }
    }
  }

 private:
  static constexpr int kGroupUnits = 2;  ///< units whose outliers are the same channels

  /// Not before the sums are there: registers.
  KVANT_HD static TokenFloats<W> LateNorms(const std::byte* norms_at, int lane) {
    TokenFloats<W> norms;
    W::Sync();
    norms.Load(norms_at, lane);
    return norms;
  }

  template <class DigitOf>
  KVANT_HD static void WholeScores(const SketchHeader& header, const SignUnit<kBits> (&units)[kUnits],
                                   const std::byte* norms_at, DigitOf digit_of, int lane, float (&scores)[kUnits][4]) {
    SignSums<W, kBits, kUnits> sums;
    sums.template Add<kSketchDigits, false>(units, digit_of);
    const TokenFloats<W> norms = LateNorms(norms_at, lane);
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) {
      const float factor = header.factor[lane % 4 * 2 + h];
      const float offset = header.offset[lane % 4 * 2 + h];
      KVANT_UNROLL
      for (int u = 0; u < kUnits; ++u) {
        KVANT_UNROLL
        for (int i = h; i < 4; i += 2) {
          scores[u][i] = (W::AsFloat(sums.sum[u][i]) * factor + offset) * norms.value[u][i / 2];
        }
      }
    }
  }

  /// Lane t has what belongs to column t, where the layout of scores wants columns 2t and 2t + 1 (beyond the fourth: others
  /// again).
  template <class DigitOf>
  KVANT_HD static void SplitScores(const SketchHeader& header, const SignUnit<kBits> (&units)[kUnits],
                                   const std::byte* norms_at, DigitOf digit_of, int lane, float (&scores)[kUnits][4]) {
    SignSums<W, kBits, kUnits> sums;
    sums.template Add<kSketchDigits / 2, true>(units, digit_of);
    const TokenFloats<W> norms = LateNorms(norms_at, lane);
    const float factor = header.factor[lane % 4];
    const float offset = header.offset[lane % 4];
    const int from = lane / 4 * 4 + lane % 2 * 2;
    KVANT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      KVANT_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int32_t sum = sums.sum[u][2 * half] + sums.sum[u][2 * half + 1] * (1 << kSketchPlanes / 2);
        const float score = (W::AsFloat(sum) * factor + offset) * norms.value[u][half];
        scores[u][2 * half] = W::Shuffle(score, from);
        scores[u][2 * half + 1] = W::Shuffle(score, from + 1);
      }
    }
  }

  /// Of the tokens of group `g`: C of a product of signs has the tokens of A as rows and the outlier channels as columns,
  /// which is A of an ordinary product with the query's values there, in both halves of its 16 channels.
  KVANT_HD static void AddOutliers(const std::byte* block, const SketchHeader& header, const std::byte* query_plain,
                                   int g, int lane, float (&scores)[kUnits][4]) {
    const auto* channels = reinterpret_cast<const uint8_t*>(block + kOutlierOffsets.channels) + g * kOutliers;
    SignSums<W, kBits, kGroupUnits> inner;
    SignSums<W, kOutlierBits, kGroupUnits> outer;
    SumColumns<kBits>(block + kOffsets.codes, header.tables, channels, g, lane, inner);
    W::Sync();
    SumColumns<kOutlierBits>(block + kOutlierOffsets.codes, header.tables, channels, g, lane, outer);
    const TokenFloats<W> norms = LateNorms(block + kOffsets.scales, lane);
    const TokenFloats<W> outlier_norms = LateNorms(block + kOutlierOffsets.scales, lane);
    Terms terms[2];
    uint32_t query = 0;
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int channel = channels[lane % 4 * 2 + h] % kDim;
      terms[h] = Terms(header.tables, channel);
      query |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(query_plain)[QueryHalf(lane / 4, channel)])
               << (16 * h);
    }
    KVANT_UNROLL
    for (int u = 0; u < kGroupUnits; ++u) {
      const int unit = g * kGroupUnits + u;
      uint32_t a[4];
      KVANT_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int32_t* in = inner.sum[u] + 2 * half;
        const int32_t* out = outer.sum[u] + 2 * half;
        const float norm = norms.value[unit][half];
        const float outlier_norm = outlier_norms.value[unit][half];
        a[half] = W::Pack(terms[0].Inner(in[0]) * norm, terms[1].Inner(in[1]) * norm);
        a[half + 2] = W::Pack(terms[0].Outer(out[0]) * outlier_norm, terms[1].Outer(out[1]) * outlier_norm);
      }
      W::Product(scores[unit], a, query ^ 0x80008000u, query);
    }
  }

  struct alignas(16) Floats4 {
    float value[4];
  };
  /// Integers of a channel's column to floats, for both sketches.
  struct Terms {
    float factor, offset, outer_factor, outer_offset;

    KVANT_HD Terms() {}
    KVANT_HD Terms(const std::byte* tables, int channel) {
      const auto* all = reinterpret_cast<const Floats4*>(tables + SketchTableLayout{kDim}.terms_byte_ofs());
      const Floats4 t = W::LoadConstant(all + channel);
      factor = t.value[0] * EstimatorFactor(kBits);
      offset = t.value[TermOffset(kBits)] * EstimatorFactor(kBits);
      outer_factor = t.value[0] * EstimatorFactor(kOutlierBits);
      outer_offset = t.value[TermOffset(kOutlierBits)] * EstimatorFactor(kOutlierBits);
    }
    KVANT_HD float Inner(int32_t sum) const { return W::AsFloat(sum) * factor + offset; }
    KVANT_HD float Outer(int32_t sum) const { return W::AsFloat(sum) * outer_factor + outer_offset; }
  };

  template <int kPartBits>
  KVANT_HD static void SumColumns(const std::byte* signs, const std::byte* tables, const uint8_t* channels, int g,
                                  int lane, SignSums<W, kPartBits, kGroupUnits>& sums) {
    SignUnit<kPartBits> units[kGroupUnits];
    KVANT_UNROLL
    for (int u = 0; u < kGroupUnits; ++u) units[u].Load(signs, g * kGroupUnits + u, lane);
    const int channel = channels[lane / 4] % kDim;
    const std::byte* column = tables + SketchTableLayout{kDim}.ColumnByteOfs(0, channel, lane % 4);
    sums.template Add<kSketchDigits, false>(units, [column](int chunk, int digit) {
      const int ofs =
          SketchTableLayout{kDim}.ColumnByteOfs(chunk, 0, 0) - SketchTableLayout{kDim}.ColumnByteOfs(0, 0, 0);
      return W::LoadConstant(reinterpret_cast<const Words4*>(column + ofs) + digit);
    });
  }
};

}  // namespace kvant::cuda
