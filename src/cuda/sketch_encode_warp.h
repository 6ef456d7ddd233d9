// Encoding of sketched keys on the device, as what one warp does with one block: outlier channels and norms in the CPU's order
// of sums, then signs. The matrix has 22 bits (two halves), so a sign differs from the CPU's only where its projection is
// within rounding of zero.
#pragma once

#include "cuda/block_readers.h"
#include "cuda/encode_warp.h"
#include "cuda/sketch_order.h"

namespace kvant::cuda {

constexpr int kOutlierGroupTokens = 32;
constexpr int kOutlierGroups = kPageTokens / kOutlierGroupTokens;

/// Channels apart of the tokens of a group, the same in all lanes.
template <class W, int kDim>
struct OutlierMask {
  uint32_t word[kDim / 32] = {};

  KVANT_HD bool Has(int channel) const { return (word[channel / 32] >> (channel % 32) & 1) != 0; }

  /// The `count` channels of most energy; of equal ones the lower.
  KVANT_HD void Choose(const EncodeParams& p, int page, int head, int group, int count, int lane) {
    using Row = WarpRow<W, kDim>;
    float energy[Row::kCount] = {};
    for (int t = 0; t < kOutlierGroupTokens; ++t) {
      const int64_t token = static_cast<int64_t>(page) * kPageTokens + group * kOutlierGroupTokens + t;
      const uint16_t* row = p.rows + (token * p.kv_heads + head) * kDim + lane * Row::kCount;
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) {
        const float x = W::HalfToFloat(row[i]);
        energy[i] += x * x;
      }
    }
    for (int n = 0; n < count; ++n) {
      float best = -1.0f;  // of those not chosen yet
      float channel = 0.0f;
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) {
        if (energy[i] <= best) continue;
        best = energy[i];
        channel = static_cast<float>(lane * Row::kCount + i);
      }
      KVANT_UNROLL
      for (int mask = 1; mask < kLanes; mask *= 2) {
        const float other = W::ShuffleXor(best, mask);
        const float other_channel = W::ShuffleXor(channel, mask);
        if (other < best || (other == best && other_channel >= channel)) continue;
        best = other;
        channel = other_channel;
      }
      const int chosen = static_cast<int>(channel);
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) energy[i] = lane * Row::kCount + i == chosen ? -2.0f : energy[i];
      KVANT_UNROLL
      for (int w = 0; w < kDim / 32; ++w) word[w] |= chosen / 32 == w ? 1u << (chosen % 32) : 0u;
    }
  }
  /// Ascending.
  KVANT_HD void Store(std::byte* to) const {
    int rank = 0;
    KVANT_UNROLL
    for (int c = 0; c < kDim; ++c) {
      if (Has(c)) to[rank++] = static_cast<std::byte>(c);
    }
  }
  /// Of the halves of channels first + more and the next those that belong to a part. REQUIRES: first is a multiple of 8,
  /// more < 7.
  KVANT_HD uint32_t Halves(int first, int more, bool outliers) const {
    const uint32_t bits = (outliers ? word[first / 32] : ~word[first / 32]) >> (first % 32 + more);
    return ((bits & 1) != 0 ? 0xFFFFu : 0u) | ((bits & 2) != 0 ? 0xFFFF0000u : 0u);
  }
};

template <class W, int kDim>
class SketchEncoder {
 public:
  KVANT_HD SketchEncoder(const EncodeParams& p, int page, int head, int lane)
      : p_(p), page_(page), head_(head), lane_(lane), block_(BlockOf(p, page, head)) {}

  KVANT_HD void Encode() {
    if (p_.slots[page_] < 0) return;
    const DeviceSketch& sketch = p_.sketch;
    for (int g = 0; g < kOutlierGroups; ++g) {
      OutlierMask<W, kDim> outliers;
      if (sketch.outliers > 0) {
        outliers.Choose(p_, page_, head_, g, sketch.outliers, lane_);
        if (lane_ == 0) outliers.Store(block_ + sketch.channels_byte_ofs + g * sketch.outliers);
      }
      StoreNorms(g, outliers);
      StoreSigns(g, outliers, false, sketch.bits, block_ + p_.offsets.codes);
      if (sketch.outliers > 0) {
        StoreSigns(g, outliers, true, sketch.outlier_bits, block_ + sketch.outlier_codes_byte_ofs);
      }
    }
    if (sketch.outliers == 0) return;
    const int end = static_cast<int>(sketch.channels_byte_ofs) + kOutlierGroups * sketch.outliers;
    for (int i = end + lane_; i < p_.offsets.bytes; i += kLanes) block_[i] = std::byte{0};
  }

 private:
  static constexpr int kSteps = kDim / kStepChannels;
  static constexpr int kGroupUnits = kOutlierGroupTokens / kUnitTokens;

  KVANT_HD const uint16_t* Row(int token) const {
    return p_.rows + ((static_cast<int64_t>(page_) * kPageTokens + token) * p_.kv_heads + head_) * kDim;
  }

  /// A lane takes a token.
  KVANT_HD void StoreNorms(int group, const OutlierMask<W, kDim>& outliers) {
    const int token = group * kOutlierGroupTokens + lane_;
    const auto* row = reinterpret_cast<const Words4*>(Row(token));
    float sums[2] = {};
    KVANT_UNROLL
    for (int i = 0; i < kDim / 8; ++i) {
      const Words4 v = row[i];
      KVANT_UNROLL
      for (int j = 0; j < 4; ++j) {
        float x[2];
        W::Unpack(v.word[j], &x[0], &x[1]);
        KVANT_UNROLL
        for (int k = 0; k < 2; ++k) {
          const bool apart = outliers.Has(8 * i + 2 * j + k);
          sums[0] += x[k] * (apart ? 0.0f : x[k]);
          sums[1] += x[k] * (apart ? x[k] : 0.0f);
        }
      }
    }
    StoreNorm(sums[0], token, block_ + p_.offsets.scales);
    if (p_.sketch.outliers > 0) StoreNorm(sums[1], token, block_ + p_.sketch.outlier_scales.byte_ofs);
  }
  KVANT_HD void StoreNorm(float energy, int token, std::byte* norms) {
    const float norm = W::Sqrt(energy);
    if (!(norm <= 65504.0f)) *p_.refused = 1;
    reinterpret_cast<uint16_t*>(norms)[TokenParam(TokenOrder::kUnits, token)] = W::FloatToHalf(norm);
  }

  /// A operands of one part of a group: rows are tokens.
  struct Operands {
    uint32_t word[kGroupUnits][kSteps][4];
  };
  KVANT_HD void Load(int group, const OutlierMask<W, kDim>& outliers, bool outlier_part, Operands* a) const {
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      KVANT_UNROLL
      for (int r = 0; r < 4; ++r) {
        const int first = s * kStepChannels + r / 2 * 8;
        const uint32_t mask = outliers.Halves(first, lane_ % 4 * 2, outlier_part);
        KVANT_UNROLL
        for (int u = 0; u < kGroupUnits; ++u) {
          const int token = (group * kGroupUnits + u) * kUnitTokens + r % 2 * 8 + lane_ / 4;
          a->word[u][s][r] = *reinterpret_cast<const uint32_t*>(Row(token) + first + lane_ % 4 * 2) & mask;
        }
      }
    }
  }

  KVANT_HD void StoreSigns(int group, const OutlierMask<W, kDim>& outliers, bool outlier_part, int bits,
                           std::byte* signs) {
    constexpr int kWordTiles = 16;  // products of 8 directions for a word of every lane
    Operands a;
    Load(group, outliers, outlier_part, &a);
    for (int w = 0; w < bits / (8 * kWordTiles); ++w) {
      uint32_t words[kGroupUnits][2] = {};
      for (int tile = 0; tile < kWordTiles; ++tile) AddTile(a, w * kWordTiles + tile, words);
      KVANT_UNROLL
      for (int u = 0; u < kGroupUnits; ++u) {
        KVANT_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int at = SignWord(bits, group * kGroupUnits + u, w / 2, lane_, half + w % 2 * 2);
          reinterpret_cast<uint32_t*>(signs)[at] = words[u][half];
        }
      }
    }
  }

  /// Signs of 8 directions come in at the top of the words.
  KVANT_HD void AddTile(const Operands& a, int tile, uint32_t (&words)[kGroupUnits][2]) const {
    constexpr SketchTableLayout kLayout = {kDim};
    const std::byte* directions = p_.sketch_tables + tile * kLayout.tile_bytes();
    ChannelWords<kDim> high, low;
    high.LoadQuery(directions, lane_);
    low.LoadQuery(directions + kLayout.low_byte_ofs(), lane_);
    KVANT_UNROLL
    for (int u = 0; u < kGroupUnits; ++u) {
      float sums[2][4] = {};
      KVANT_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        StepProduct<W>(sums[0], a.word[u][s], &high.word[2 * s]);
        StepProduct<W>(sums[1], a.word[u][s], &low.word[2 * s]);
      }
      KVANT_UNROLL
      for (int half = 0; half < 2; ++half) {
        const uint32_t first = sums[0][2 * half] + sums[1][2 * half] > 0.0f ? 1u << 30 : 0u;
        const uint32_t second = sums[0][2 * half + 1] + sums[1][2 * half + 1] > 0.0f ? 1u << 31 : 0u;
        words[u][half] = words[u][half] >> 2 | first | second;
      }
    }
  }

  const EncodeParams& p_;
  const int page_, head_, lane_;
  std::byte* const block_;
};

}  // namespace kvant::cuda
