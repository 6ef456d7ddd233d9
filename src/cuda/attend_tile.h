// A decode step of few sequences in one launch, as what one warp does. Blocks belong to a tile (a sequence, a KV head, up to
// 8 columns of its queries): each maps the tile's queries for itself, its warps share pages with those of the tile's other
// blocks, their states are merged in shared memory, and the block that comes last merges those of the blocks.
#pragma once

#include "cuda/attend_warp.h"
#include "cuda/prepare_merge_warp.h"

namespace kvant::cuda {

/// Warps of a block, at most.
constexpr int kMostTileWarps = kLanes / 2;

/// Where a warp works, within its tile.
struct TilePlace {
  WarpPlace at;
  int64_t block_index;  ///< of all blocks
  int block;            ///< of the tile
  int warp;
  int warps;  ///< of a block

  /// Block `block` of a tile; `head_tile` counts KV heads and their tiles.
  KVANT_HD static TilePlace Of(const AttendParams& p, int block, int head_tile, int sequence, int warp, int warps,
                               int lane) {
    TilePlace place = {};
    place.at.lane = lane;
    place.at.tile = head_tile % p.shape.tiles();
    place.at.kv_head = head_tile / p.shape.tiles();
    place.at.sequence = sequence;
    place.block_index = TileIndex(p, place.at) * p.tile.blocks + block;
    place.block = block;
    place.warp = warp;
    place.warps = warps;
    return place;
  }
  KVANT_HD int columns(const AttendParams& p) const {
    const int left = p.shape.columns() - at.tile * kTileColumns;
    return left < kTileColumns ? left : kTileColumns;
  }
};

/// The warps of a tile take its pages in turn. Exact pages are taken by units of 16 tokens, each about as many bytes as a
/// sealed page, after the sealed ones.
struct TileWork {
  PageRange sealed;
  PageRange exact_units;

  /// Blocks of the tile that have work; one where nobody has.
  KVANT_HD static int Blocks(const AttendParams& p, int sequence) {
    if (p.tile.chunk == 0) return p.tile.blocks;
    const int pages = p.sealed.max_pages > 0 ? p.sealed.counts[sequence] : 0;
    const int units = pages + (p.exact.max_pages > 0 ? p.exact.counts[sequence] * kUnits : 0);
    return units > 0 ? (units + p.tile.chunk - 1) / p.tile.chunk : 1;
  }

  KVANT_HD static TileWork Of(const AttendParams& p, const TilePlace& place, int blocks) {
    const int step = blocks * place.warps;
    const int first = place.warp * blocks + place.block;  // few pages are spread over all blocks
    const FirstPages start(p.sealed, place.at.sequence, first, step);
    const int pages = p.sealed.max_pages > 0 ? p.sealed.counts[place.at.sequence] : 0;
    const int units = p.exact.max_pages > 0 ? p.exact.counts[place.at.sequence] * kUnits : 0;
    const PageRange sealed = {first, step, Count(first, step, pages), start};
    const int first_unit = sealed.page(sealed.count) - pages;
    return {sealed, {first_unit, step, Count(first_unit, step, units), {}}};
  }

 private:
  KVANT_HD static int Count(int first, int step, int end) { return first < end ? (end - first + step - 1) / step : 0; }
};

/// What a warp leaves in its slots: states [2][out [8][kStride], max and sum [2][8]] of sealed and of exact pages; zeros and a
/// maximum that says so where it had no page of a kind.
template <class Keys, class Values, int kDepth>
struct TileStates {
  static constexpr int kDim = Keys::kDim;
  using Floats = StateFloats<kDim>;
  static constexpr int kWarpFloats = PageSlots<Keys, Values, kDepth>::kBytes / 4;

  template <class State>
  KVANT_HD static void Store(const PageRange& pages, State& state, float gain, int kind, int lane, std::byte* slots) {
    float* to = reinterpret_cast<float*>(slots) + kind * Floats::kCount;
    if (pages.count > 0) {
      state.Store(gain / kWeightGain, lane, to, Floats::kStride, to + Floats::kOut);
      return;
    }
    for (int i = lane; i < Floats::kOut; i += kLanes) to[i] = 0.0f;
    if (lane < 2 * kTileColumns) to[Floats::kOut + lane] = lane < kTileColumns ? kNothing : 0.0f;
  }
  KVANT_HD static const float* Out(const std::byte* space, int kind, int warp, int column) {
    return Of(space, kind, warp) + column * Floats::kStride;
  }
  /// Maxima of the columns, and kTileColumns further on their sums.
  KVANT_HD static const float* Sums(const std::byte* space, int kind, int warp) {
    return Of(space, kind, warp) + Floats::kOut;
  }

 private:
  KVANT_HD static const float* Of(const std::byte* space, int kind, int warp) {
    return reinterpret_cast<const float*>(space) + warp * kWarpFloats + kind * Floats::kCount;
  }
};

/// Exact pages by units: keys and values of a unit are under way together.
template <class W, int kDim>
KVANT_HD void AttendExactUnits(const AttendParams& p, const WarpPlace& at, const PageRange& units,
                               const WarpQueries& queries, ItemState<W, ExactValues<W, kDim>>& state) {
  constexpr bool kTogether = kDim <= 128;  // or they take too many registers
  const PageRef* table = p.exact.table + static_cast<int64_t>(at.sequence) * p.exact.max_pages;
  const LaneRows rows(p, at);
  for (int i = 0; i < units.count; ++i) {
    const PageRef ref = table[units.page(i) / kUnits];
    const int unit = units.page(i) % kUnits;
    constexpr int kBytes = ExactKeys<W, kDim>::kOffsets.bytes;
    const int first = unit * (PlaneBytes(kDim, 16) / kUnits);
    const std::byte* key_unit = p.exact.keys + BlockOffset(ref.slot, p.exact.key_stride, at.kv_head, kBytes) + first;
    const std::byte* value_unit =
        p.exact.values + BlockOffset(ref.slot, p.exact.value_stride, at.kv_head, kBytes) + first;
    PlaneWords<kDim, 16> keys, values;
    W::Sync();
    keys.Load(key_unit, 0, at.lane);
    if (kTogether) values.Load(value_unit, 0, at.lane);
    ChannelWords<kDim> query;
    query.LoadQuery(queries.plain, at.lane);
    float scores[kUnits][4] = {};
    ExactKeys<W, kDim>::UnitScores(keys, query, scores[0]);
    const int first_token = unit * kUnitTokens;
    state.Weigh(p.soft_cap, {rows.Seen(0, ref) >> first_token & 0xFFFF, rows.Seen(1, ref) >> first_token & 0xFFFF},
                at.lane, scores);
    if (!kTogether) values.Load(value_unit, 0, at.lane);
    ExactValues<W, kDim>::AddUnit(values, scores[0], state.out);
  }
}

/// One column of what the warps of a block left. Lane 16 k + w has the state of kind k and warp w.
template <class W, class States>
KVANT_HD void MergeBlock(const AttendParams& p, const TilePlace& place, int column, const std::byte* space) {
  using Row = WarpRow<W, States::kDim>;
  constexpr int kBatch = 4;  // loads in flight, of each kind
  const int lane = place.at.lane;
  const int last = place.warps - 1;
  const int warp = lane % kMostTileWarps;
  const float* own = States::Sums(space, lane / kMostTileWarps, warp <= last ? warp : last) + column;
  const float own_max = warp <= last ? own[0] : kNothing;
  const float max = MaxOfLanes<W>(W::Max(own_max, kNothing));
  const float factor = own_max > kNothing ? W::Exp2(own_max - max) : 0.0f;
  const float sum = SumOfLanes<W>(own[kTileColumns] * factor);
  Row rows[2];
  for (int first = 0; first <= last; first += kBatch) {
    KVANT_UNROLL
    for (int i = 0; i < 2 * kBatch; ++i) {
      const int kind = i / kBatch;
      const int from = first + i % kBatch;
      const float weight = W::Shuffle(factor, kind * kMostTileWarps + from);  // 0 beyond the last warp
      Row part;
      part.Load(States::Out(space, kind, from <= last ? from : last, column), lane);
      KVANT_UNROLL
      for (int c = 0; c < Row::kCount; ++c) rows[kind].value[c] += part.value[c] * weight;
    }
  }
  if (p.tile.output.hadamard) {
    rows[0].Butterfly(lane);
    rows[0].Signs(lane);
  }
  KVANT_UNROLL
  for (int c = 0; c < Row::kCount; ++c) rows[0].value[c] += rows[1].value[c];
  const int64_t at = place.block_index * kTileColumns + column;
  rows[0].Store(p.partial_out + at * States::kDim, lane);
  if (lane == 0) {
    float* state = p.partial_state + place.block_index * 2 * kTileColumns + column;
    state[0] = max;
    state[kTileColumns] = sum;
  }
}

/// One column of what the blocks of the tile left. Loads of a batch do not wait for one another.
template <class W, int kDim>
KVANT_HD void MergeTile(const AttendParams& p, const TilePlace& place, int blocks, int column) {
  using Row = WarpRow<W, kDim>;
  constexpr int kBatch = 16;
  const int lane = place.at.lane;
  const int64_t first = place.block_index - place.block;
  const float* states = p.partial_state + first * 2 * kTileColumns + column;
  const float* out = p.partial_out + (first * kTileColumns + column) * kDim;
  Row row;
  float max = kNothing;
  float sum = 0.0f;  // this lane's blocks
  for (int batch = 0; batch < blocks; batch += kBatch) {
    Row parts[kBatch];
    KVANT_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      if (batch + b < blocks) parts[b].LoadFresh(out + static_cast<int64_t>(batch + b) * kTileColumns * kDim, lane);
    }
    const bool mine = lane < kBatch && batch + lane < blocks;
    const float* state = states + (mine ? batch + lane : 0) * 2 * kTileColumns;
    const float block_max = mine ? W::LoadFresh(state) : kNothing;
    const float block_sum = mine ? W::LoadFresh(state + kTileColumns) : 0.0f;
    const float new_max = MaxOfLanes<W>(W::Max(max, block_max));
    const float rescale = W::Exp2(max - new_max);
    const float factor = W::Exp2(block_max - new_max);
    max = new_max;
    sum = sum * rescale + block_sum * factor;
    KVANT_UNROLL
    for (int c = 0; c < Row::kCount; ++c) row.value[c] *= rescale;
    KVANT_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      const float weight = W::Shuffle(factor, b);
      KVANT_UNROLL
      for (int c = 0; c < Row::kCount; ++c) row.value[c] += parts[b].value[c] * weight;
    }
  }
  sum = SumOfLanes<W>(sum);
  StoreOutput<W, kDim>(p.tile.output, p.shape, place.at.sequence, place.at.kv_head,
                       place.at.tile * kTileColumns + column, max, sum, lane, row);
}

/// One warp. `mapped`: WarpQueries bytes of the block; `space`: PageSlots bytes for every warp of it.
template <int kDepth, class W, class Keys, class Values>
KVANT_HD void AttendTile(const AttendParams& p, const TilePlace& place, std::byte* mapped, std::byte* space,
                         const std::byte* key_table, const std::byte* value_table) {
  constexpr int kDim = Keys::kDim;
  using States = TileStates<Keys, Values, kDepth>;
  const WarpPlace& at = place.at;
  std::byte* slots = space + place.warp * PageSlots<Keys, Values, kDepth>::kBytes;
  const PrepareParams& prepare = p.tile.prepare;
  // As early as the queries, and for the same reason.
  const typename QueryMap<Keys>::Constants constants(prepare.sketch_tables, place.warp, at.lane);
  WarpRow<W, kDim> query;
  // The next launch may read pages early as well: not before what this one waits for has ended.
  const auto wait = [&] {
    W::WaitForPrevious();
    W::LaunchNext();
    query = LoadQuery<W, kDim>(prepare, at.sequence, at.kv_head, at.tile, place.warp, at.lane);
  };
  // Before the copies, behind which the query would wait for long.
  if (!p.tile.sealed_ready) wait();
  const int blocks = TileWork::Blocks(p, at.sequence);
  if (place.block >= blocks) return;
  const TileWork work = TileWork::Of(p, place, blocks);
  const WarpQueries queries = WarpQueries::At<Keys>(mapped);
  const auto map_queries = [&] {
    if (p.tile.sealed_ready) wait();
    auto* to = reinterpret_cast<uint16_t*>(mapped);
    if (place.warp < kTileColumns) StoreQuery<W, kDim>(prepare, query, place.warp, at.lane, to);
    for (int column = place.warp + place.warps; column < kTileColumns; column += place.warps) {
      const auto row = LoadQuery<W, kDim>(prepare, at.sequence, at.kv_head, at.tile, column, at.lane);
      StoreQuery<W, kDim>(prepare, row, column, at.lane, to);
    }
    W::BlockSync();
    QueryMap<Keys>::Map(constants, prepare.sketch_tables, place.columns(p), place.warp, place.warps, at.lane, mapped);
  };
  {
    ItemState<W, Values> state;
    AttendSealed<kDepth, W, Keys, Values>(p, at, work.sealed, queries, slots, key_table, value_table, map_queries,
                                          state);
    States::Store(work.sealed, state, p.value_gain, 0, at.lane, slots);
  }
  {
    ItemState<W, ExactValues<W, kDim>> state;
    AttendExactUnits<W, kDim>(p, at, work.exact_units, queries, state);
    States::Store(work.exact_units, state, 1.0f, 1, at.lane, slots);
  }
  W::BlockSync();
  const int columns = place.columns(p);
  for (int i = place.warp; i < columns; i += place.warps) MergeBlock<W, States>(p, place, i, space);
  W::BlockSync();
  auto* ticket = reinterpret_cast<uint32_t*>(space);
  uint32_t* count = p.tile.tickets + TileIndex(p, at);
  if (place.warp == 0 && at.lane == 0) *ticket = W::TakeTicket(count);
  W::BlockSync();
  if (*ticket != static_cast<uint32_t>(blocks) - 1) return;
  if (place.warp == 0 && at.lane == 0) *count = 0;  // for the next step
  W::Fence();
  for (int i = place.warp; i < columns; i += place.warps) MergeTile<W, kDim>(p, place, blocks, i);
}

}  // namespace kvant::cuda
