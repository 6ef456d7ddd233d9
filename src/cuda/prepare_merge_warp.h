// Before and after the items: queries into operand order, mapped where the sealed pages are; partial states into outputs,
// mapped back. A warp holds a row, lane l the channels l * n .. l * n + n - 1 with n = dim / 32.
#pragma once

#include "cuda/attend_params.h"
#include "cuda/fragment_order.h"
#include "cuda/lanes.h"

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

/// A row spread over kRowLanes lanes; a warp has rows for all its lanes.
template <class W, int kDim, int kRowLanes = kLanes>
struct WarpRow {
  static constexpr int kCount = kDim / kRowLanes;
  struct alignas(kCount < 4 ? 4 * kCount : 16) Vector {
    float value[kCount];
  };
  struct alignas(kCount < 8 ? 2 * kCount : 16) Halves {
    uint16_t value[kCount];
  };
  float value[kCount] = {};

  KVANT_HD void Load(const float* from, int lane) { Set(reinterpret_cast<const Vector*>(from)[lane]); }
  KVANT_HD void LoadHalves(const uint16_t* from, int lane) { SetHalves(reinterpret_cast<const Halves*>(from)[lane]); }
  KVANT_HD void SetHalves(const Halves& halves) {
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) value[i] = W::HalfToFloat(halves.value[i]);
  }
  KVANT_HD void StoreHalves(uint16_t* to, int lane) const {
    Halves halves;
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) halves.value[i] = W::FloatToHalf(value[i]);
    reinterpret_cast<Halves*>(to)[lane] = halves;
  }
  /// What other blocks of the launch wrote.
  KVANT_HD void LoadFresh(const float* from, int lane) {
    if constexpr (sizeof(Vector) <= 16) {
      Set(W::LoadFresh(reinterpret_cast<const Vector*>(from) + lane));
    } else {
      KVANT_UNROLL
      for (int i = 0; i < kCount; ++i) value[i] = W::LoadFresh(from + lane * kCount + i);
    }
  }
  KVANT_HD void Store(float* to, int lane) const {
    Vector v;
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) v.value[i] = value[i];
    reinterpret_cast<Vector*>(to)[lane] = v;
  }

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
    for (int mask = 1; mask < kRowLanes; mask *= 2) {
      KVANT_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const float other = W::ShuffleXor(value[i], mask);
        value[i] = (lane & mask) != 0 ? other - value[i] : value[i] + other;
      }
    }
  }
  KVANT_HD void Signs(int lane) {
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) {
      value[i] *= DeviceHadamardSign(lane % kRowLanes * kCount + i) * HadamardNorm<kDim>();
    }
  }

 private:
  KVANT_HD void Set(const Vector& v) {
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) value[i] = v.value[i];
  }
};

/// A column of a tile, times the softmax scale; zeros beyond the last column.
template <class W, int kDim>
KVANT_HD WarpRow<W, kDim> LoadQuery(const PrepareParams& p, int sequence, int kv_head, int tile, int column, int lane) {
  using Row = WarpRow<W, kDim>;
  const int of_kv = tile * kTileColumns + column;
  Row row;
  if (of_kv >= p.shape.columns()) return row;
  const int64_t first = p.shape.Vector(sequence, kv_head, of_kv) * kDim;
  if (p.is_float) {
    row.Load(static_cast<const float*>(p.queries) + first, lane);
  } else {
    row.LoadHalves(static_cast<const uint16_t*>(p.queries) + first, lane);
  }
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) row.value[i] *= p.scale;
  return row;
}

/// A loaded query in both forms, to halves [2][8][dim].
template <class W, int kDim>
KVANT_HD void StoreQuery(const PrepareParams& p, WarpRow<W, kDim> row, int column, int lane, uint16_t* plain) {
  using Row = WarpRow<W, kDim>;
  const auto store = [&](float gain, uint16_t* to) {
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      to[QueryHalf(column, lane * Row::kCount + i)] = W::FloatToHalf(row.value[i] * gain);
    }
  };
  store(1.0f, plain);
  if (p.hadamard) {
    row.Signs(lane);
    row.Butterfly(lane);
  }
  store(p.sealed_gain, plain + kTileColumns * kDim);
}

template <class W, int kDim>
KVANT_HD void PrepareWarp(const PrepareParams& p, int sequence, int kv_head, int tile, int column, int lane) {
  const int64_t index = (static_cast<int64_t>(sequence) * p.shape.kv_heads + kv_head) * p.shape.tiles() + tile;
  const int64_t at = index * 2 * kTileColumns * kDim;
  W::LaunchNext();
  StoreQuery<W, kDim>(p, LoadQuery<W, kDim>(p, sequence, kv_head, tile, column, lane), column, lane,
                      reinterpret_cast<uint16_t*>(p.out) + at);
}

/// Warps that share the items of one column, and what they exchange: sums of sealed and of exact pages.
constexpr int kMergeWarps = 16;
template <int kDim>
struct MergeShared {
  float sum[kMergeWarps];
  alignas(16) float out[2][kMergeWarps][kDim];
};

/// A maximum at or below this: no row was seen.
constexpr float kNothing = -1e29f;

/// Partial states of one column.
struct Partials {
  const float* out;    ///< of item 0
  const float* state;  ///< likewise; the sum is kTileColumns further on
  int64_t out_stride;
  int64_t state_stride;

  KVANT_HD float max(int item) const { return state[item * state_stride]; }
  KVANT_HD float sum(int item) const { return state[item * state_stride + kTileColumns]; }
};

struct ItemRange {
  int first;
  int count;
};

template <class W>
KVANT_HD inline float GreatestMax(const Partials& from, const ItemRange& items, int lane, float max) {
  for (int i = lane; i < items.count; i += kLanes) max = W::Max(max, from.max(items.first + i));
  return MaxOfLanes<W>(max);
}

/// Adds every kStep-th item from `start` on. The maximum of all is known, so no item waits for another.
template <class W, int kDim, int kStep>
KVANT_HD inline void AddItems(const Partials& from, const ItemRange& items, float max, int start, int lane,
                              WarpRow<W, kDim>* row, float* sum) {
  constexpr int kBatch = 8;  // loads in flight
  for (int batch = start; batch < items.count; batch += kBatch * kStep) {
    WarpRow<W, kDim> parts[kBatch];
    float factors[kBatch] = {};
    KVANT_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      if (batch + b * kStep >= items.count) continue;
      const int item = items.first + batch + b * kStep;
      parts[b].Load(from.out + item * from.out_stride, lane);
      factors[b] = W::Exp2(from.max(item) - max);
      *sum += from.sum(item) * factors[b];
    }
    KVANT_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      KVANT_UNROLL
      for (int c = 0; c < row->kCount; ++c) row->value[c] += parts[b].value[c] * factors[b];
    }
  }
}

/// What the warps have left, in one of them: the output row before it is divided by `sum`.
template <class W, int kDim>
KVANT_HD WarpRow<W, kDim> MergeResult(const MergeShared<kDim>& shared, bool hadamard, int lane, float* sum_of_weights) {
  WarpRow<W, kDim> rows[2];
  float sum = 0.0f;
  KVANT_UNROLL
  for (int warp = 0; warp < kMergeWarps; ++warp) {
    sum += shared.sum[warp];
    KVANT_UNROLL
    for (int kind = 0; kind < 2; ++kind) {
      WarpRow<W, kDim> part;
      part.Load(shared.out[kind][warp], lane);
      KVANT_UNROLL
      for (int c = 0; c < part.kCount; ++c) rows[kind].value[c] += part.value[c];
    }
  }
  if (hadamard) {
    rows[0].Butterfly(lane);
    rows[0].Signs(lane);
  }
  KVANT_UNROLL
  for (int c = 0; c < rows[0].kCount; ++c) rows[0].value[c] += rows[1].value[c];
  *sum_of_weights = sum;
  return rows[0];
}

/// `maybe_counts` null: there are no pages of this kind.
KVANT_HD inline int ItemsInUse(const int32_t* maybe_counts, int sequence, int pages_per_item) {
  return maybe_counts ? (maybe_counts[sequence] + pages_per_item - 1) / pages_per_item : 0;
}

/// Stores the row of a column divided by its sum of weights, where the sink of its head takes part; zeros for a sum of 0.
template <class W, int kDim>
KVANT_HD void StoreOutput(const OutputParams& p, const QueryShape& shape, int sequence, int kv_head, int column,
                          float max, float sum, int lane, const WarpRow<W, kDim>& row) {
  constexpr int kCount = WarpRow<W, kDim>::kCount;
  const float sink = p.maybe_sinks ? W::Exp2(p.maybe_sinks[shape.head(kv_head, column)] * 1.44269504f - max) : 0.0f;
  const float inverse = sum > 0.0f ? W::Reciprocal(sum + sink) : 0.0f;
  const int64_t to = shape.Vector(sequence, kv_head, column) * kDim;
  WarpRow<W, kDim> scaled;
  KVANT_UNROLL
  for (int c = 0; c < kCount; ++c) scaled.value[c] = row.value[c] * inverse;
  if (p.is_float) {
    scaled.Store(static_cast<float*>(p.out) + to, lane);
  } else {
    scaled.StoreHalves(static_cast<uint16_t*>(p.out) + to, lane);
  }
}

/// One of kMergeWarps warps of one column; `index` counts the columns of all KV heads.
template <class W, int kDim>
KVANT_HD void MergeWarp(const MergeParams& p, int sequence, int index, int warp, int lane, MergeShared<kDim>* shared) {
  const int kv_head = index / p.shape.columns();
  const int of_kv = index % p.shape.columns();
  const int64_t first_item =
      ((static_cast<int64_t>(sequence) * p.shape.kv_heads + kv_head) * p.shape.tiles() + of_kv / kTileColumns) *
      p.items;
  const int column = of_kv % kTileColumns;
  const Partials from = {p.partial_out + (first_item * kTileColumns + column) * kDim,
                         p.partial_state + first_item * 2 * kTileColumns + column, kTileColumns * kDim,
                         2 * kTileColumns};
  const ItemRange items[2] = {{0, ItemsInUse(p.sealed_counts, sequence, p.sealed_pages_per_item)},
                              {p.sealed_items, ItemsInUse(p.exact_counts, sequence, p.exact_pages_per_item)}};
  W::WaitForPrevious();
  const float max = GreatestMax<W>(from, items[1], lane, GreatestMax<W>(from, items[0], lane, kNothing));
  float sum = 0.0f;
  KVANT_UNROLL
  for (int kind = 0; kind < 2; ++kind) {
    WarpRow<W, kDim> row;
    // Where no item saw a row, weights mean nothing.
    if (max > kNothing) AddItems<W, kDim, kMergeWarps>(from, items[kind], max, warp, lane, &row, &sum);
    row.Store(shared->out[kind][warp], lane);
  }
  if (lane == 0) shared->sum[warp] = sum;
  W::BlockSync();
  if (warp != 0) return;
  const WarpRow<W, kDim> row = MergeResult<W, kDim>(*shared, p.output.hadamard, lane, &sum);
  StoreOutput<W, kDim>(p.output, p.shape, sequence, kv_head, of_kv, max, sum, lane, row);
}

}  // namespace kvant::cuda
