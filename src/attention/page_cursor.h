// Walks the pages of a view in row order.
#pragma once

#include <cstdint>
#include <span>

#include "cache/kv_store.h"

namespace kvant {

/// Position in a list of runs. Pages of one row number come one after the other (a sink block, then the coded page).
class PageCursor {
 public:
  /// At the first page whose first_row is at least `row`.
  PageCursor(std::span<const PageRun> runs, int64_t row) : runs_(runs) {
    Settle();
    while (!done() && page().first_row < row) Next();
  }

  bool done() const { return run_ == runs_.size(); }
  const PageRun& run() const { return runs_[run_]; }
  size_t run_index() const { return run_; }
  const PageView& page() const { return runs_[run_].pages[page_]; }
  /// The block of a KV head in the current page.
  const std::byte* block(int head) const {
    return page().blocks + static_cast<size_t>(head) * run().codec->block_bytes();
  }
  BlockContext context(int head) const { return run().Context(page(), head); }
  void Next() {
    ++page_;
    Settle();
  }

 private:
  void Settle() {
    while (run_ < runs_.size() && page_ == runs_[run_].pages.size()) {
      ++run_;
      page_ = 0;
    }
  }

  std::span<const PageRun> runs_;
  size_t run_ = 0;
  size_t page_ = 0;
};

}  // namespace kvant
