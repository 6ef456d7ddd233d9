// Page tables from a mask, as what one thread block does for one query row and the pages of one kind. A thread has a page, eight
// lanes read the mask of eight pages, 16 bytes each at a time, so that a page's mask is one line of 128 bytes.
#pragma once

#include "cuda/attend_params.h"
#include "cuda/code_units.h"
#include "cuda/fragment_order.h"
#include "kvant/status.h"

namespace kvant::cuda {

/// DevicePageList.
struct PageList {
  const PageRef* pages;   ///< [streams][max_pages]; ahead: number of the page
  const int32_t* counts;  ///< [streams]
  int32_t max_pages;
  PageRef* table;         ///< [streams * rows][max_pages]
  int32_t* table_counts;  ///< [streams * rows]
};

struct TableParams {
  PageList list[2];
  int32_t lists;  ///< in use
  int32_t streams;
  int32_t rows;  ///< of each stream
  int32_t cells;
  const std::byte* maybe_mask;  ///< fp16
  int64_t mask_row_stride;      ///< bytes
  int64_t mask_stream_stride;
};

/// Warps of a block, at most.
constexpr int kMostTableWarps = 32;
/// Pages that each warp has kept, in turns: what is read in one turn is written again in the next but one.
using KeptPages = uint32_t[2][kMostTableWarps];

/// Cells of the mask that a lane reads at once, and pages whose masks a warp reads at once.
constexpr int kMaskCells = 8;
constexpr int kMaskLanes = kPageTokens / kMaskCells;

/// Bit i: cell i is seen, from its half.
template <class W>
KVANT_HD inline uint32_t SeenBits(const Words4& halves) {
  constexpr uint32_t kLeast = 0xF0E2F0E2u;  // -1e4
  uint32_t bits = 0;                        // of the low halves, and 16 further on those of the high ones
  KVANT_UNROLL
  for (int i = 0; i < 4; ++i) bits |= W::AtLeast(halves.word[i], kLeast) & (0x00020001u << (2 * i));
  return (bits | bits >> 16) & 0xFF;
}

/// Eight lanes have eight bytes each, of one column of a matrix; afterwards of one row.
template <class W>
KVANT_HD inline void TransposeBytes(int lane, uint32_t (&words)[2]) {
  const bool right4 = (lane & 4) != 0, right2 = (lane & 2) != 0, right1 = (lane & 1) != 0;
  // What one lane of two has of the other's columns is exchanged: words, then halves of words, then bytes.
  uint32_t a = words[0], b = words[1];
  uint32_t got = W::ShuffleXor(right4 ? a : b, 4);
  (right4 ? a : b) = got;
  got = W::ShuffleXor(right2 ? W::Bytes(a, b, 0, 1, 4, 5) : W::Bytes(a, b, 2, 3, 6, 7), 2);
  a = right2 ? W::Bytes(a, got, 4, 5, 2, 3) : W::Bytes(a, got, 0, 1, 4, 5);
  b = right2 ? W::Bytes(b, got, 6, 7, 2, 3) : W::Bytes(b, got, 0, 1, 6, 7);
  got = W::ShuffleXor(right1 ? W::Bytes(a, b, 0, 2, 4, 6) : W::Bytes(a, b, 1, 3, 5, 7), 1);
  words[0] = right1 ? W::Bytes(a, got, 4, 1, 5, 3) : W::Bytes(a, got, 0, 4, 2, 5);
  words[1] = right1 ? W::Bytes(b, got, 6, 1, 7, 3) : W::Bytes(b, got, 0, 6, 2, 7);
}

/// One row of the mask.
struct MaskRow {
  const uint16_t* halves;  ///< null: there is no mask
  int32_t cells;

  KVANT_HD static MaskRow Of(const TableParams& p, int stream, int row) {
    if (!p.maybe_mask) return {nullptr, 0};
    const std::byte* first = p.maybe_mask + stream * p.mask_stream_stride + row * p.mask_row_stride;
    return {reinterpret_cast<const uint16_t*>(first), p.cells};
  }

  /// Of the page of each lane the rows that are seen; of negative ones none. All lanes have to call it.
  template <class W>
  KVANT_HD uint64_t Seen(int32_t page, int lane) const {
    const int32_t whole = cells / kMaskCells;  // vectors
    const int32_t near = page >= 0 && page <= cells / kPageTokens ? page : -1;
    const int eighth = lane % kMaskLanes;
    Words4 masks[kMaskLanes];  // of the eight pages of these lanes; loads are under way together
    int tail = kMaskLanes;     // the one that ends in the midst of this lane's cells
    KVANT_UNROLL
    for (int i = 0; i < kMaskLanes; ++i) {
      const uint32_t number = W::Shuffle(static_cast<uint32_t>(near), lane - eighth + i);
      const auto vector = static_cast<int32_t>(number * kMaskLanes) + eighth;
      masks[i] = {kNone, kNone, kNone, kNone};
      if (vector >= 0 && vector < whole) {
        masks[i] = W::LoadConstant(reinterpret_cast<const Words4*>(halves) + vector);
      }
      if (vector == whole) tail = i;
    }
    uint32_t words[2] = {};
    KVANT_UNROLL
    for (int i = 0; i < kMaskLanes; ++i) words[i / 4] |= SeenBits<W>(masks[i]) << (8 * (i % 4));
    if (tail < kMaskLanes) {
      const uint32_t bits = TailBits<W>() << (8 * (tail % 4));
      words[0] |= tail < 4 ? bits : 0;
      words[1] |= tail < 4 ? 0 : bits;
    }
    TransposeBytes<W>(lane, words);
    return words[0] | static_cast<uint64_t>(words[1]) << 32;
  }

 private:
  static constexpr uint32_t kNone = 0xFC00FC00u;  // -infinity

  template <class W>
  KVANT_HD uint32_t TailBits() const {
    const int first = cells / kMaskCells * kMaskCells;
    uint32_t seen = 0;
    KVANT_UNROLL_BY(1)
    for (int i = first; i < cells; ++i) {
      seen |= (SeenBits<W>({halves[i], kNone, kNone, kNone}) & 1) << (i - first);
    }
    return seen;
  }
};

/// One thread of a block; `row` counts those of all streams. REQUIRES: `threads` is a multiple of 32 up to 1024.
template <class W>
KVANT_HD void BuildTableThread(const TableParams& p, const PageList& list, int row, int thread, int threads,
                               KeptPages& kept_pages) {
  const int lane = thread % kLanes;
  const int warp = thread / kLanes;
  const int stream = row / p.rows;
  const PageRef* pages = list.pages + static_cast<int64_t>(stream) * list.max_pages;
  PageRef* table = list.table + static_cast<int64_t>(row) * list.max_pages;
  const MaskRow mask = MaskRow::Of(p, stream, row % p.rows);
  // Entries are loaded before they are known to be in use.
  const auto load = [&](int i) { return i < list.max_pages ? W::LoadConstant(pages + i) : PageRef{}; };
  PageRef next = load(thread);
  const int count = list.counts[stream];
  int used = 0;
  for (int first = 0, turn = 0; first < count; first += threads, turn ^= 1) {
    const PageRef page = next;
    next = load(first + threads + thread);
    uint64_t live = first + thread < count ? page.live : 0;
    if (mask.halves) live &= mask.Seen<W>(live != 0 ? page.ahead : -1, lane);
    const uint32_t kept = W::Ballot(live != 0);
    if (lane == 0) kept_pages[turn][warp] = static_cast<uint32_t>(W::CountBits(kept));
    W::BlockSync();
    const uint32_t of_warp = lane < threads / kLanes ? kept_pages[turn][lane] : 0;
    const uint32_t sums = W::Sum(of_warp << 16 | (lane < warp ? of_warp : 0));  // of all warps, of those before
    const int before = static_cast<int>(sums & 0xFFFF) + W::CountBits(kept & ((1u << lane) - 1));
    if (live != 0) table[used + before] = {live, page.slot, 0};
    used += static_cast<int>(sums >> 16);
  }
  if (thread == 0) list.table_counts[row] = used;
}

/// Neither waits nor allocates.
Status LaunchPageTables(const TableParams& params, void* stream);

}  // namespace kvant::cuda
