// Writes a batch of rows into the pages of a sequence: check, plan, open pages, copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/team.h"
#include "cache/kv_store.h"
#include "cache/page_pool.h"
#include "cache/sequence.h"
#include "cache/store_format.h"
#include "cache/team_status.h"
#include "kvant/status.h"

namespace kvant {

/// Shared by the members of the team that writes. Either all rows of a batch become visible or none.
class RowWriter {
 public:
  RowWriter(const StoreFormat* format, PagePool* pool) : format_(format), pool_(pool) {}

  /// As KvStore::Write.
  Status Write(const Team& team, Sequence& sequence, std::span<const int64_t> rows, const RowSource& source,
               std::span<const int32_t> positions);

 private:
  struct Batch {
    Sequence& sequence;
    std::span<const int64_t> rows;
    const RowSource& source;
    std::span<const int32_t> positions;  ///< empty: the row numbers

    int64_t position(size_t i) const { return positions.empty() ? rows[i] : positions[i]; }
  };
  /// The rows of a batch that fall into one page.
  struct PageWrite {
    int64_t page;
    size_t first;  ///< in order_
    size_t last;
    uint64_t written;         ///< bit t: row t is in the batch
    PoolSlot slot;            ///< what the page is opened into; empty when it is open
    PoolSlot positions = {};  ///< of a page that has none yet, where the format keeps them
  };

  void WriteWith(const Team& team, const Batch& batch);
  Status CheckRow(const Batch& batch, size_t i) const;
  void CheckShare(const Team& team, const Batch& batch);
  Status Plan(const Batch& batch);
  bool Reserve(const Batch& batch, PageWrite& write);
  void GroupByPage(const Batch& batch);
  void OpenShare(const Team& team, const Batch& batch);
  Status OpenBlock(const Batch& batch, PageWrite& write, int head) const;
  void CopyShare(const Team& team, const Batch& batch);
  void CopyRows(const Batch& batch, const PageWrite& write, int head, std::byte* block) const;
  void Commit(const Batch& batch);

  const StoreFormat* format_;
  PagePool* pool_;
  TeamStatus status_;
  std::vector<size_t> order_;      ///< indexes into the batch, page by page, else as given
  std::vector<PageWrite> writes_;  ///< in order of pages
  bool opens_pages_ = false;
};

}  // namespace kvant
