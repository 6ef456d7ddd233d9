// Before and after the items: queries into operand order, mapped where the sealed pages are; partial states into outputs,
// mapped back. A warp holds a row, lane l the channels l * n .. l * n + n - 1 with n = dim / 32.
#pragma once

#include "cuda/attend_params.h"
#include "cuda/fragment_order.h"

namespace kvant::cuda {

/// As HadamardSign of codec/parts/hadamard.h, which a test compares it with.
KVANT_HD constexpr float DeviceHadamardSign(int i) {
  uint32_t h = (static_cast<uint32_t>(i) + 1) * 0x9E3779B1u;
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  return (h >> 31) != 0 ? -1.0f : 1.0f;
}

/// 1 / sqrt(dim).
template <int kDim>
KVANT_HD constexpr float HadamardNorm() {
  return kDim == 64 ? 0.125f : kDim == 128 ? 0.08838834764831845f : 0.0625f;
}

/// A row spread over a warp.
template <class W, int kDim>
struct WarpRow {
  static constexpr int kCount = kDim / kLanes;
  float value[kCount];

  /// Unnormalised Walsh-Hadamard transform.
  KVANT_HD void Butterfly(int lane) {
    KVANT_UNROLL
    for (int stride = 1; stride < kCount; stride *= 2) {
      KVANT_UNROLL
      for (int i = 0; i < kCount; ++i) {
        if ((i & stride) != 0) continue;
        const float a = value[i];
        const float b = value[i + stride];
        value[i] = a + b;
        value[i + stride] = a - b;
      }
    }
    KVANT_UNROLL
    for (int mask = 1; mask < kLanes; mask *= 2) {
      KVANT_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const float other = W::ShuffleXor(value[i], mask);
        value[i] = (lane & mask) != 0 ? other - value[i] : value[i] + other;
      }
    }
  }
  KVANT_HD void Signs(int lane) {
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) value[i] *= DeviceHadamardSign(lane * kCount + i) * HadamardNorm<kDim>();
  }
};

/// One warp: the query head `head` of a tile, in both forms; zeros beyond the last head.
template <class W, int kDim>
KVANT_HD void PrepareWarp(const PrepareParams& p, int sequence, int kv_head, int tile, int head, int lane) {
  using Row = WarpRow<W, kDim>;
  const int tiles = (p.heads_per_kv + kTileHeads - 1) / kTileHeads;
  const int of_kv = tile * kTileHeads + head;
  Row row;
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) row.value[i] = 0.0f;
  if (of_kv < p.heads_per_kv) {
    const int64_t first =
        ((static_cast<int64_t>(sequence) * p.kv_heads + kv_head) * p.heads_per_kv + of_kv) * kDim + lane * Row::kCount;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      row.value[i] = p.scale * (p.is_float ? static_cast<const float*>(p.queries)[first + i]
                                           : W::HalfToFloat(static_cast<const uint16_t*>(p.queries)[first + i]));
    }
  }
  const int64_t at = ((static_cast<int64_t>(sequence) * p.kv_heads + kv_head) * tiles + tile) * 2 * kTileHeads * kDim;
  auto* sealed = reinterpret_cast<uint16_t*>(p.out) + at;
  auto* plain = sealed + kTileHeads * kDim;
  const auto store = [&](float gain, uint16_t* to) {
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      to[QueryHalf(kDim, head, lane * Row::kCount + i)] = W::FloatToHalf(row.value[i] * gain);
    }
  };
  store(1.0f, plain);
  if (p.hadamard) {
    row.Signs(lane);
    row.Butterfly(lane);
  }
  store(p.sealed_gain, sealed);
}

/// Warps that share the items of one query head, and what they exchange.
constexpr int kMergeWarps = 8;
template <int kDim>
struct MergeShared {
  float max[kMergeWarps];
  float sum[kMergeWarps];
  float out[2][kMergeWarps][kDim];  ///< of sealed and of exact pages
};

/// The state of a warp that merges.
template <class W, int kDim>
class Merge {
 public:
  using Row = WarpRow<W, kDim>;

  KVANT_HD Merge() {
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) sealed_.value[i] = exact_.value[i] = 0.0f;
  }

  KVANT_HD void Add(float max, float sum, const float* out, bool is_exact, int lane) {
    if (max <= kNothing) return;
    const float top = max > max_ ? max : max_;
    const float old = W::Exp2(max_ - top);
    const float factor = W::Exp2(max - top);
    max_ = top;
    sum_ = sum_ * old + sum * factor;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      const float x = out[lane * Row::kCount + i] * factor;
      sealed_.value[i] = sealed_.value[i] * old + (is_exact ? 0.0f : x);
      exact_.value[i] = exact_.value[i] * old + (is_exact ? x : 0.0f);
    }
  }
  KVANT_HD void Put(int warp, int lane, MergeShared<kDim>* shared) const {
    if (lane == 0) {
      shared->max[warp] = max_;
      shared->sum[warp] = sum_;
    }
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      shared->out[0][warp][lane * Row::kCount + i] = sealed_.value[i];
      shared->out[1][warp][lane * Row::kCount + i] = exact_.value[i];
    }
  }
  /// Takes up another warp's state.
  KVANT_HD void Take(const MergeShared<kDim>& shared, int warp, int lane) {
    Add(shared.max[warp], shared.sum[warp], shared.out[0][warp], false, lane);
    // The exact part has the same maximum, which Add has just taken in.
    const float factor = shared.max[warp] <= kNothing ? 0.0f : W::Exp2(shared.max[warp] - max_);
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      exact_.value[i] += factor * shared.out[1][warp][lane * Row::kCount + i];
    }
  }
  KVANT_HD Row Result(bool hadamard, int lane) {
    if (hadamard) {
      sealed_.Butterfly(lane);
      sealed_.Signs(lane);
    }
    Row row;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      row.value[i] = sum_ > 0.0f ? (sealed_.value[i] + exact_.value[i]) / sum_ : 0.0f;
    }
    return row;
  }

 private:
  /// A maximum at or below this: the item saw no row.
  static constexpr float kNothing = -1e29f;
  float max_ = -1e30f;
  float sum_ = 0.0f;
  Row sealed_;
  Row exact_;
};

/// `maybe_counts` null: there are no pages of this kind.
KVANT_HD inline int ItemsInUse(const int32_t* maybe_counts, int sequence, int pages_per_item) {
  return maybe_counts ? (maybe_counts[sequence] + pages_per_item - 1) / pages_per_item : 0;
}

/// One of kMergeWarps warps of one query head.
template <class W, int kDim>
KVANT_HD void MergeWarp(const MergeParams& p, int sequence, int head, int warp, int lane, MergeShared<kDim>* shared) {
  const int tiles = (p.heads_per_kv + kTileHeads - 1) / kTileHeads;
  const int of_kv = head % p.heads_per_kv;
  const int64_t first_item =
      ((static_cast<int64_t>(sequence) * p.kv_heads + head / p.heads_per_kv) * tiles + of_kv / kTileHeads) * p.items;
  const int column = of_kv % kTileHeads;
  const int sealed = ItemsInUse(p.sealed_counts, sequence, p.sealed_pages_per_item);
  const int exact = ItemsInUse(p.exact_counts, sequence, p.exact_pages_per_item);
  Merge<W, kDim> merge;
  for (int i = warp; i < sealed + exact; i += kMergeWarps) {
    const bool is_exact = i >= sealed;
    const int64_t index = first_item + (is_exact ? p.sealed_items + i - sealed : i);
    const float* state = p.partial_state + index * 2 * kTileHeads + column;
    merge.Add(state[0], state[kTileHeads], p.partial_out + (index * kTileHeads + column) * kDim, is_exact, lane);
  }
  merge.Put(warp, lane, shared);
  W::BlockSync();
  if (warp != 0) return;
  for (int other = 1; other < kMergeWarps; ++other) merge.Take(*shared, other, lane);
  const WarpRow<W, kDim> row = merge.Result(p.hadamard, lane);
  const int64_t to =
      (static_cast<int64_t>(sequence) * p.kv_heads * p.heads_per_kv + head) * kDim + lane * WarpRow<W, kDim>::kCount;
  KVANT_UNROLL
  for (int i = 0; i < WarpRow<W, kDim>::kCount; ++i) {
    if (p.is_float) {
      static_cast<float*>(p.out)[to + i] = row.value[i];
    } else {
      static_cast<uint16_t*>(p.out)[to + i] = W::FloatToHalf(row.value[i]);
    }
  }
}

}  // namespace kvant::cuda
