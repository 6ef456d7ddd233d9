// The page table of one sequence: which rows are held, where, and what must be sealed next. Plain data with
// the rules that keep it consistent; RowWriter and PageSealer change it, each on its leader's thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "cache/basis.h"
#include "cache/kv_store.h"
#include "cache/page_pool.h"
#include "cache/store_format.h"
#include "page/paged_view.h"

namespace kvant {

/// Immutable, shared by forks.
struct SealedPage {
  PoolSlot blocks;  ///< [kv_heads, block_bytes] of the sealed codec
  std::shared_ptr<const Basis> maybe_basis;
};

using TokenClasses = std::array<TokenClass, kTokensPerPage>;

/// One page of the table: empty (nothing written), open or sealed.
struct Page {
  PoolSlot open;  ///< [kv_heads, block_bytes] of the open codec
  std::shared_ptr<const SealedPage> sealed;
  PoolSlot positions;                           ///< int32 [kTokensPerPage] where the format keeps them, else empty
  std::unique_ptr<TokenClasses> maybe_classes;  ///< of an open page; null: all ordinary
  uint64_t live = 0;                            ///< bit t: row t was written; sinks included
  size_t view_index = 0;                        ///< place in Sequence::View, when open

  bool is_empty() const { return !open && sealed == nullptr; }
  int32_t* maybe_positions() { return reinterpret_cast<int32_t*>(positions.data()); }
  const int32_t* maybe_positions() const { return reinterpret_cast<const int32_t*>(positions.data()); }
};

/// What the sealed codec's verbs need beside a block of `page`.
inline BlockContext ContextOf(const StoreFormat& format, const SealedPage& sealed, const Page& page, int head) {
  const Basis* basis = sealed.maybe_basis.get();
  return {.basis = basis == nullptr ? nullptr : basis->of_heads[static_cast<size_t>(head)],
          .positions = page.maybe_positions(),
          .rope = format.maybe_rope.get()};
}

/// Rows written since the last basis was fitted: what the next one is fitted to.
struct Segment {
  int64_t first_row = INT64_MAX;
  int64_t end_row = 0;
  int64_t rows_written = 0;

  void Add(int64_t row) {
    first_row = std::min(first_row, row);
    end_row = std::max(end_row, row + 1);
    ++rows_written;
  }
};

constexpr int64_t PageOfRow(int64_t row) { return row / kTokensPerPage; }

class Sequence {
 public:
  /// `format` outlives the sequence. `maybe_calibrated`: the basis of all pages, where the format has one.
  explicit Sequence(const StoreFormat* format, std::shared_ptr<const Basis> maybe_calibrated = nullptr)
      : format_(format), basis_(std::move(maybe_calibrated)) {}
  Sequence(Sequence&&) noexcept = default;
  Sequence& operator=(Sequence&&) noexcept = default;

  // ---- what is held
  const std::vector<Page>& pages() const { return pages_; }
  int64_t num_rows() const { return num_rows_; }
  int64_t rows_held() const { return rows_held_; }
  /// Null while nothing is known of `page`.
  const Page* FindPage(int64_t page) const;
  /// The exact sink rows while page 0 is sealed, else null. [kv_heads, block_bytes] of the sink codec.
  const PoolSlot* maybe_sinks() const { return sinks_.get(); }
  const std::shared_ptr<const Basis>& maybe_basis() const { return basis_; }
  const Segment& segment() const { return segment_; }
  std::span<const PageRun> View() const { return runs_; }

  // ---- sealing
  /// Full pages older than the recent window, in order, at most `max_pages`.
  std::vector<int64_t> DuePages(size_t max_pages) const;
  /// A basis can and should be fitted before the next page is sealed.
  bool WantsBasis() const;

  /// [kv_heads, block_bytes] of an open page, for writing rows into it. REQUIRES: the page is open.
  std::byte* OpenBytes(int64_t page) { return pages_[static_cast<size_t>(page)].open.data(); }

  // ---- changes; the caller rebuilds the view after the last one where it says so
  /// Rows `written` of `page` hold data. A `slot` that is not empty becomes the open page (then rebuild the
  /// view), `positions` the page's positions.
  void CommitWrite(int64_t page, PoolSlot slot, PoolSlot positions, uint64_t written);
  /// What an open row is to the one who wrote it. REQUIRES: its page is open.
  void SetClass(int64_t row, TokenClass token_class);
  /// [kTokensPerPage] of a page that is not empty. REQUIRES: the format keeps positions
  int32_t* PositionsOf(int64_t page) { return pages_[static_cast<size_t>(page)].maybe_positions(); }
  /// Replaces the exact sinks, which forks share. Rebuild the view.
  void CommitSinks(std::shared_ptr<const PoolSlot> sinks) { sinks_ = std::move(sinks); }
  /// `page` is sealed; `sinks` for page 0 of a sequence with sinks. Rebuild the view.
  void CommitSeal(int64_t page, std::shared_ptr<const SealedPage> sealed, std::shared_ptr<const PoolSlot> sinks);
  /// Starts a new segment.
  void CommitBasis(std::shared_ptr<const Basis> basis);
  /// Forgets rows >= num_rows; what is left of a sealed page stays sealed. Rebuilds the view.
  void Truncate(int64_t num_rows);
  /// A copy that shares what is immutable; OutOfMemory when an open page cannot be copied.
  Result<Sequence> Fork(PagePool* pool) const;
  void RebuildView();

 private:
  bool IsDue(int64_t page) const;
  void AddToView(const Codec& codec, const Basis* maybe_basis, const PageView& view);

  const StoreFormat* format_;
  std::vector<Page> pages_;
  std::set<int64_t> open_pages_;
  std::shared_ptr<const PoolSlot> sinks_;
  std::shared_ptr<const Basis> basis_;
  Segment segment_;
  int64_t num_rows_ = 0;  ///< one past the highest row held
  int64_t rows_held_ = 0;
  std::vector<PageView> page_views_;
  std::vector<PageRun> runs_;  ///< spans of page_views_
};

}  // namespace kvant
