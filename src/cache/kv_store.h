// The K or the V of one layer, for all sequences: pages, bases, sealing. K and V are two stores that know nothing of
// each other.
//
// Rows are numbered per sequence. Under libllama a "sequence" here is a stream of cache cells and a row is a cell;
// cells are written in any order and rewritten. A program that embeds kvant appends rows 0, 1, 2, ...
//
// Functions that take a Team are called by every member of it with the same arguments, and return on every member
// with the same Status; they start and end with a barrier. All others are called by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/float16.h"
#include "base/team.h"
#include "codec/calibrated.h"
#include "kvant/status.h"
#include "kvant/token_class.h"
#include "page/paged_view.h"

namespace kvant {

class PagePool;

/// Rows to write: [count, kv_heads * dim] values.
struct RowSource {
  const void* data = nullptr;
  size_t row_stride_bytes = 0;
  bool is_f16 = false;                        ///< F16 instead of float
  const TokenClass* maybe_classes = nullptr;  ///< [count], kept until the rows are sealed; null: all ordinary
};

/// Where decoded rows go: [count, kv_heads * dim] F16.
struct RowTarget {
  F16* data = nullptr;
  size_t row_stride = 0;  ///< in values
};

/// Pages that share a codec and a basis, in row order.
struct PageRun {
  const Codec* codec;                       ///< how to read the pages; the raw codec for open pages and sinks
  std::span<const std::byte* const> bases;  ///< [kv_heads] or empty: no basis
  std::span<const PageView> pages;
  const Rope* maybe_rope = nullptr;  ///< of codecs that keep keys before RoPE

  /// What the verbs need beside the block of `head` in `page`.
  BlockContext Context(const PageView& page, int head) const {
    return {.basis = bases.empty() ? nullptr : bases[static_cast<size_t>(head)],
            .positions = page.maybe_positions,
            .rope = maybe_rope};
  }
};

/// Bytes held, by what they are for. All of them are really allocated.
struct Footprint {
  size_t by_kind[kNumStreamKinds] = {};  ///< sealed blocks by stream kind (kExact: sinks, open and recent pages)
  size_t rows = 0;                       ///< rows held (written and not freed), summed over sequences
  size_t values = 0;                     ///< rows * kv_heads * dim
  size_t total() const;
  double bits_per_value() const {
    return values ? 8.0 * static_cast<double>(total()) / static_cast<double>(values) : 0;
  }
  Footprint& operator+=(const Footprint& other);
};

struct KvStoreConfig {
  int layer = 0;
  int kv_heads = 0;
  int num_sequences = 1;
  Codec codec;  ///< for sealed pages; codec.shape() gives side and dim
  /// Calibrated bases [num_bases, basis_bytes], which the pages of all sequences share; null: fitted online, or the
  /// codec has none.
  SharedBases maybe_bases = nullptr;
  int sink_tokens = 0;
  int recent_tokens = 0;
  std::shared_ptr<const Rope> maybe_rope = nullptr;  ///< required by codecs that keep keys before RoPE
};

class KvStore {
 public:
  /// `pool` is shared by all stores of a cache and outlives them; it enforces the memory limit. Errors:
  /// InvalidArgument (numbers out of range), NotFound (the codec needs calibrated bases and there are none), OutOfMemory.
  static Result<std::unique_ptr<KvStore>> Create(const KvStoreConfig& config, PagePool* pool);
  ~KvStore();

  const KvStoreConfig& config() const;

  /// Writes `rows.size()` rows of `source` at the given row numbers of `sequence`; a row of a sealed page opens the
  /// page again. Errors: InvalidArgument (a NaN, an infinity or a value beyond fp16, naming layer, K or V, head and
  /// row; nothing of the batch is visible then), OutOfMemory. Next: Seal, after the attention has read exact rows.
  /// `positions` [rows.size()] are those that the model turned the rows by; empty: the row numbers. Only codecs that
  /// keep keys before RoPE care.
  Status Write(const Team& team, int sequence, std::span<const int64_t> rows, const RowSource& source,
               std::span<const int32_t> positions = {});

  /// Seals every full page that is older than the recent window, fitting a basis first where the codec wants one.
  /// Returns without a barrier when there is none, which is so for most tokens. Errors: OutOfMemory, and InvalidArgument
  /// when the codec refuses a page; such a page stays open and exact, the others are sealed.
  Status Seal(const Team& team, int sequence);

  /// Whether positions matter here: the codec keeps keys before RoPE.
  bool keeps_positions() const;
  /// Position of a row; 0 when it was never written. REQUIRES: keeps_positions()
  int32_t Position(int sequence, int64_t row) const;
  /// Moves row r by shift[r] positions (0: not at all); rows from shift.size() on stay. Sealed pages stay as they are,
  /// exact rows are turned. Errors: InvalidArgument (a position below 0 or beyond kMaxPositions), OutOfMemory; nothing
  /// is moved then. REQUIRES: keeps_positions()
  Status MovePositions(const Team& team, int sequence, std::span<const int32_t> shift);

  /// Decodes rows first .. first+count-1 to F16; rows never written give zeros.
  Status Read(const Team& team, int sequence, int64_t first, int64_t count, const RowTarget& target) const;

  /// Pages of a sequence in row order, for attention; the sink rows of a sealed page 0 are a run of their own before it.
  /// Valid until the next call that is not const.
  std::span<const PageRun> View(int sequence) const;

  /// One past the highest row written.
  int64_t num_rows(int sequence) const;

  /// `to` becomes a copy of `from`; sealed pages and bases are shared, open pages copied. `to` is as before after an
  /// error.
  Status Fork(int from, int to);
  /// Forgets rows >= num_rows. What is left of a sealed page stays sealed until it is written to. Needs no memory.
  Status Truncate(int sequence, int64_t num_rows);
  /// Forgets everything of a sequence.
  void Clear(int sequence);

  Footprint footprint() const;
  double seal_seconds() const;  ///< spent in Seal so far: encoding and fitting bases

 private:
  struct Impl;
  explicit KvStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvant
