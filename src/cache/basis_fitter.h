// Fits the basis of a new segment to rows that a sequence holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/team.h"
#include "cache/page_pool.h"
#include "cache/sequence.h"
#include "cache/store_format.h"
#include "cache/team_status.h"

namespace kvant {

/// Shared by the members of the team that seals.
class BasisFitter {
 public:
  BasisFitter(const StoreFormat* format, PagePool* pool) : format_(format), pool_(pool) {}

  /// Fits a basis and makes it the sequence's current one, when Sequence::WantsBasis. Errors go to `status`.
  /// REQUIRES: all members are past a barrier. Ends with a barrier.
  void FitIfWanted(const Team& team, Sequence& sequence, TeamStatus& status);

 private:
  /// Rows of one page that are used.
  struct PageRows {
    int64_t page;
    uint64_t chosen;
    size_t out_row;  ///< of the first of them in rows_
  };

  Status Plan(const Sequence& sequence);
  void ChooseRows(const Sequence& sequence);
  uint64_t FitRows(const Sequence& sequence, int64_t page) const;
  void GatherShare(const Team& team, const Sequence& sequence, TeamStatus& status);
  void CopyChosen(const PageRows& page, int head, const float* rows);
  void FitShare(const Team& team, TeamStatus& status);

  const StoreFormat* format_;
  PagePool* pool_;
  std::vector<PageRows> pages_;
  size_t num_rows_ = 0;           ///< chosen rows, per head
  AlignedBuffer<float> rows_;     ///< [kv_heads, num_rows_, dim]
  std::shared_ptr<Basis> basis_;  ///< being fitted; null: nothing to fit
};

}  // namespace kvant
