// The decode kernel, as what one warp does with one item: stream pages, online softmax, leave a partial state. The
// softmax is in base 2: queries come times log2 e.
#pragma once

#include "cuda/block_readers.h"
#include "cuda/lanes.h"

namespace kvant::cuda {

/// Where a warp works.
struct WarpPlace {
  /// Of warp `index`: items first, then tiles, KV heads, sequences.
  KVANT_HD static WarpPlace Of(const AttendParams& p, int64_t index, int lane) {
    WarpPlace at = {};
    at.lane = lane;
    at.item = static_cast<int>(index % p.items());
    index /= p.items();
    at.tile = static_cast<int>(index % p.shape.tiles());
    index /= p.shape.tiles();
    at.kv_head = static_cast<int>(index % p.shape.kv_heads);
    at.sequence = static_cast<int>(index / p.shape.kv_heads);
    return at;
  }

  int sequence;
  int kv_head;
  int tile;  ///< of 8 columns
  int item;
  int lane;
};

/// The state of an online softmax over the pages of one item, in the layouts of the products.
template <class W, class Values>
class ItemState {
 public:
  static constexpr int kSteps = Values::kSteps;
  using Layout = typename Values::Layout;
  static constexpr int kGroups = Layout::kGroups;

  KVANT_HD ItemState() {
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) out[s][i] = 0.0f;
    }
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) {
      max_[h] = kHidden;
      sum_[h] = 0.0f;
      KVANT_UNROLL
      for (int g = 0; g < Values::kShifts; ++g) shift[g][h] = 0.0f;
    }
  }

  /// Scores -> weights, in place; what was accumulated before is rescaled when a maximum has risen. `live`: of the lane's two
  /// columns.
  KVANT_HD void Weigh(float soft_cap, const uint64_t (&live)[2], int lane, float (&s)[kGroups][4]) {
    if (soft_cap > 0.0f) Cap(soft_cap, s);
    if ((live[0] & live[1]) != ~uint64_t{0}) Hide(live, lane, s);
    float rescale[2];
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) {
      float max = kHidden;
      KVANT_UNROLL
      for (int u = 0; u < kGroups; ++u) max = W::Max(max, W::Max(s[u][h], s[u][h + 2]));
      max = W::Max(MaxOfLanes<W, kLanes, Layout::kFirstMask>(max), max_[h]);
      rescale[h] = W::Exp2(max_[h] - max);
      max_[h] = max;
      sum_[h] *= rescale[h];
    }
    KVANT_UNROLL
    for (int u = 0; u < kGroups; ++u) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        s[u][i] = W::Exp2(s[u][i] - max_[i % 2]);
        sum_[i % 2] += s[u][i];
      }
    }
    if (W::Any(rescale[0] != 1.0f || rescale[1] != 1.0f)) Rescale(rescale);
  }

  /// Adds the lanes' sums and writes out [columns][dim], rows `stride` floats apart, and state [2][8].
  KVANT_HD void Store(float gain, int lane, float* out_to, int stride, float* state_to) {
    constexpr int kShiftGroups = ShiftGroups<Values>();
    float group_shift[kShiftGroups][2];
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int column = Layout::Column(h, lane);
      const float sum = AcrossTokens(sum_[h]);
      if (lane < Layout::kFirstMask) {
        state_to[column] = max_[h];
        state_to[kTileColumns + column] = sum;
      }
      KVANT_UNROLL
      for (int g = 0; g < kShiftGroups; ++g) group_shift[g][h] = GroupShift(g, h, lane);
    }
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int channel = s * kStepChannels + i / 2 * 8 + lane / 4;
        const float sum = SumOfLanes<W, 4, Layout::kFirstMask>(out[s][i]);
        out_to[Layout::Column(i, lane) * stride + channel] =
            sum * (gain * Values::OutGain(s, i)) + group_shift[s * kShiftGroups / kSteps][i % 2];
      }
    }
  }

  float out[kSteps][4];
  float shift[Values::kShifts][2];

 private:
  /// Hidden scores; finite, so that the difference of two of them is a number.
  static constexpr float kHidden = -1e30f;

  KVANT_HD float GroupShift(int group, int h, int lane) const {
    if constexpr (requires { Values::kShiftRows; }) {
      return W::Shuffle(shift[0][h], group * 4 + lane % 4);
    } else {
      return AcrossTokens(shift[group][h]);
    }
  }
  KVANT_HD static float AcrossTokens(float x) { return SumOfLanes<W, kLanes, Layout::kFirstMask>(x); }
  // A hidden token must not count even when nothing else of the item is visible yet: weights of 1 at a maximum of kHidden
  // are rescaled by exp2(-1e30 - max) = 0 as soon as something is; the merge leaves out items that never saw anything.
  KVANT_HD static void Hide(const uint64_t (&live)[2], int lane, float (&s)[kGroups][4]) {
    KVANT_UNROLL
    for (int u = 0; u < kGroups; ++u) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int token = Layout::Token(Values::kOrder, u, i, lane);
        if ((live[i % 2] >> token & 1) == 0) s[u][i] = kHidden;
      }
    }
  }
  // tanh(x) = 1 - 2 / (exp(2 x) + 1).
  KVANT_HD static void Cap(float cap, float (&s)[kGroups][4]) {
    const float to_exponent = 2.0f * 1.44269504f * W::Reciprocal(cap);
    KVANT_UNROLL
    for (int u = 0; u < kGroups; ++u) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) s[u][i] = cap - 2.0f * cap * W::Reciprocal(W::Exp2(s[u][i] * to_exponent) + 1.0f);
    }
  }
  KVANT_HD void Rescale(const float (&rescale)[2]) {
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) out[s][i] *= rescale[i % 2];
    }
    KVANT_UNROLL
    for (int g = 0; g < Values::kShifts; ++g) {
      shift[g][0] *= rescale[0];
      shift[g][1] *= rescale[1];
    }
  }

  float max_[2];  // of heads 2t, 2t+1; the same in all lanes of a t
  float sum_[2];  // this lane's tokens only
};

/// A warp's partial state in shared memory: out [8][kStride], then max and sum [2][8].
template <int kDim>
struct StateFloats {
  static constexpr int kStride = kDim + 4;  ///< so that lanes meet no bank twice
  static constexpr int kOut = kTileColumns * kStride;
  static constexpr int kCount = kOut + 2 * kTileColumns;
};

/// Shared memory of a warp: the blocks of kDepth pages, and in their place at the end two states. Exact pages need none.
template <class Keys, class Values, int kDepth>
struct PageSlots {
  static constexpr int kPages = kDepth * (Keys::kOffsets.bytes + Values::kOffsets.bytes);
  static constexpr int kStates = 2 * 4 * StateFloats<Keys::kDim>::kCount;
  static constexpr int kBytes = Keys::kExact ? 0 : kPages < kStates ? kStates : kPages;
};

/// Queries of a warp's heads: halves [8][dim] as they are, then in the form that sealed keys are read with.
struct WarpQueries {
  const std::byte* sealed;
  const std::byte* plain;

  /// Bytes of both.
  template <class Keys>
  static constexpr int kBytes = QueryBytes<Keys>();

  template <class Keys>
  KVANT_HD static WarpQueries At(const std::byte* first) {
    return {first + PlainQueryBytes(Keys::kDim), first};
  }
};

KVANT_HD inline int64_t TileIndex(const AttendParams& p, const WarpPlace& at) {
  return (static_cast<int64_t>(at.sequence) * p.shape.kv_heads + at.kv_head) * p.shape.tiles() + at.tile;
}

template <class W, class Values>
KVANT_HD inline void StoreItem(const AttendParams& p, const WarpPlace& at, float gain, ItemState<W, Values>& state) {
  const int64_t index = TileIndex(p, at) * p.items() + at.item;
  state.Store(gain / kWeightGain, at.lane, p.partial_out + index * kTileColumns * Values::kDim, Values::kDim,
              p.partial_state + index * 2 * kTileColumns);
}

/// Entries of a warp's first pages: loaded together with the counts, not after them, so whether there are such pages is not
/// known yet.
struct FirstPages {
  static constexpr int kCount = 3;
  int32_t slot[kCount] = {};
  uint64_t live = 0;  ///< of the first

  KVANT_HD FirstPages() {}
  KVANT_HD FirstPages(const PageSet& set, int sequence, int first, int step) {
    const PageRef* table = set.table + static_cast<int64_t>(sequence) * set.max_pages;
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (first + i * step < set.max_pages) slot[i] = table[first + i * step].slot;
    }
    if (first < set.max_pages) live = table[first].live;
  }
};

/// The pages first, first + step, ... of a warp.
struct PageRange {
  int first;
  int step;
  int count;
  FirstPages start;

  KVANT_HD int page(int index) const { return first + index * step; }
};
KVANT_HD inline PageRange ItemPages(const PageSet& set, int sequence, int item) {
  const int first = item * set.pages_per_item;
  const FirstPages start(set, sequence, first, 1);
  const int left = set.counts[sequence] - first;
  return {first, 1, left < set.pages_per_item ? left : set.pages_per_item, start};
}

/// Starts the copy of a block, 16 bytes per lane and step.
template <class W, int kBytes>
KVANT_HD inline void CopyBlock(const std::byte* from, int lane, std::byte* to) {
  constexpr int kStep = kLanes * 16;
  KVANT_UNROLL
  for (int i = 0; i < kBytes / kStep; ++i) W::CopyAsync16(to + i * kStep + lane * 16, from + i * kStep + lane * 16);
  constexpr int kDone = kBytes / kStep * kStep;
  if (lane * 16 < kBytes - kDone) W::CopyAsync16(to + kDone + lane * 16, from + kDone + lane * 16);
}

/// The copies of a warp's blocks, keys and values apart, kDepth slots of each: a slot is filled again as soon as its block has
/// been used, kDepth - 1/2 pages before it is waited for. Where many warps take turns, one slot is enough. Indices count the
/// warp's pages.
template <class W, class Keys, class Values, int kDepth>
struct PageCopies {
  static constexpr int kValues = kDepth * Keys::kOffsets.bytes;  ///< where the slots of values begin
  const AttendParams& p;
  const WarpPlace& at;
  PageRange pages;
  std::byte* slots;

  KVANT_HD std::byte* key(int index) const { return slots + index % kDepth * Keys::kOffsets.bytes; }
  KVANT_HD std::byte* value(int index) const { return slots + kValues + index % kDepth * Values::kOffsets.bytes; }
  KVANT_HD void StartKey(int index, int32_t slot) const {
    constexpr int kBytes = Keys::kOffsets.bytes;
    if (index < pages.count) {
      const int64_t from = BlockOffset(slot, p.sealed.key_stride, at.kv_head, kBytes);
      CopyBlock<W, kBytes>(p.sealed.keys + from, at.lane, key(index));
    }
    W::CommitCopies();
  }
  KVANT_HD void StartValue(int index, int32_t slot) const {
    constexpr int kBytes = Values::kOffsets.bytes;
    if (index < pages.count) {
      const int64_t from = BlockOffset(slot, p.sealed.value_stride, at.kv_head, kBytes);
      CopyBlock<W, kBytes>(p.sealed.values + from, at.lane, value(index));
    }
    W::CommitCopies();
  }
  /// For the oldest of the copies that are under way.
  KVANT_HD void Wait() const {
    W::template WaitCopies<2 * kDepth - 1>();
    W::Sync();
  }
};

/// Streams a warp's sealed pages; the queries may be read after ready(). `slots`: this warp's PageSlots bytes. `key_table`,
/// `value_table`: Table of the readers, where they have one.
template <int kDepth, class W, class Keys, class Values, class Ready>
KVANT_HD void AttendSealed(const AttendParams& p, const WarpPlace& at, const PageRange& pages,
                           const WarpQueries& queries, std::byte* slots, const std::byte* key_table,
                           const std::byte* value_table, Ready ready, ItemState<W, Values>& state) {
  static_assert(Keys::kOrder == Values::kOrder);
  const PageRef* table = p.sealed.table + static_cast<int64_t>(at.sequence) * p.sealed.max_pages;
  static_assert(kDepth < FirstPages::kCount);
  const PageCopies<W, Keys, Values, kDepth> copies = {p, at, pages, slots};
  KVANT_UNROLL
  for (int i = 0; i < kDepth; ++i) {
    copies.StartKey(i, pages.start.slot[i]);
    copies.StartValue(i, pages.start.slot[i]);
  }
  ready();
  // Entries of the table are loaded a page before they are needed.
  uint64_t next_live = pages.start.live;
  int32_t next_slot = pages.start.slot[kDepth];
  for (int i = 0; i < pages.count; ++i) {
    const uint64_t live = next_live;
    const int32_t slot = next_slot;
    if (i + 1 < pages.count) next_live = table[pages.page(i + 1)].live;
    if (i + kDepth + 1 < pages.count) next_slot = table[pages.page(i + kDepth + 1)].slot;
    copies.Wait();
    float scores[Values::Layout::kGroups][4];
    Keys::Score(copies.key(i), queries.sealed, queries.plain, key_table, at.lane, scores);
    W::Sync();  // all lanes are done with the slot
    copies.StartKey(i + kDepth, slot);
    state.Weigh(p.soft_cap, {live, live}, at.lane, scores);
    copies.Wait();
    Values::Accumulate(copies.value(i), value_table, at.lane, scores, state.out, state.shift);
    W::Sync();
    copies.StartValue(i + kDepth, slot);
  }
}

/// The query rows of a lane's two columns.
struct LaneRows {
  int row[2];

  KVANT_HD LaneRows(const AttendParams& p, const WarpPlace& at) {
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) row[h] = p.shape.row(at.tile * kTileColumns + at.lane % 4 * 2 + h);
  }
  KVANT_HD uint64_t Seen(int column, const PageRef& page) const { return SeenBy(row[column], page.live, page.ahead); }
};

template <class W, int kDim>
KVANT_HD void AttendExact(const AttendParams& p, const PageSet& set, const WarpPlace& at, const PageRange& pages,
                          const WarpQueries& queries, ItemState<W, ExactValues<W, kDim>>& state) {
  using Keys = ExactKeys<W, kDim>;
  using Values = ExactValues<W, kDim>;
  const PageRef* table = set.table + static_cast<int64_t>(at.sequence) * set.max_pages;
  const LaneRows rows(p, at);
  for (int i = 0; i < pages.count; ++i) {
    const PageRef ref = table[pages.page(i)];
    constexpr int kBytes = Keys::kOffsets.bytes;
    float scores[kUnits][4];
    const std::byte* keys = set.keys + BlockOffset(ref.slot, set.key_stride, at.kv_head, kBytes);
    Keys::Score(keys, nullptr, queries.plain, nullptr, at.lane, scores);
    state.Weigh(p.soft_cap, {rows.Seen(0, ref), rows.Seen(1, ref)}, at.lane, scores);
    const std::byte* values = set.values + BlockOffset(ref.slot, set.value_stride, at.kv_head, kBytes);
    Values::Accumulate(values, nullptr, at.lane, scores, state.out, state.shift);
  }
}

/// One warp: finds its pages and works through them. Does nothing when there are none.
template <int kDepth, class W, class Keys, class Values>
KVANT_HD void AttendWarp(const AttendParams& p, const WarpPlace& at, std::byte* slots, const std::byte* key_table,
                         const std::byte* value_table) {
  const int sealed_items = p.sealed.items();
  const bool exact = at.item >= sealed_items;
  const PageSet& set = exact ? p.exact : p.sealed;
  const PageRange pages = ItemPages(set, at.sequence, exact ? at.item - sealed_items : at.item);
  if (pages.count <= 0) return;
  const WarpQueries queries = WarpQueries::At<Keys>(reinterpret_cast<const std::byte*>(p.queries) +
                                                    TileIndex(p, at) * WarpQueries::kBytes<Keys>);
  if (exact || Keys::kExact) {
    ItemState<W, ExactValues<W, Keys::kDim>> state;
    W::WaitForPrevious();
    AttendExact<W, Keys::kDim>(p, set, at, pages, queries, state);
    StoreItem(p, at, 1.0f, state);
  } else {
    ItemState<W, Values> state;
    const auto ready = [] { W::WaitForPrevious(); };
    AttendSealed<kDepth, W, Keys, Values>(p, at, pages, queries, slots, key_table, value_table, ready, state);
    StoreItem(p, at, p.value_gain, state);
  }
}

}  // namespace kvant::cuda
