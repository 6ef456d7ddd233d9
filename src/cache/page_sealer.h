// Seals the pages of a sequence that are due: fits a basis where the codec wants one, encodes, lets the open
// pages go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/team.h"
#include "cache/basis_fitter.h"
#include "cache/page_pool.h"
#include "cache/page_rows.h"
#include "cache/sequence.h"
#include "cache/store_format.h"
#include "cache/team_status.h"
#include "kvant/status.h"

namespace kvant {

/// Shared by the members of the team that seals.
class PageSealer {
 public:
  PageSealer(const StoreFormat* format, PagePool* pool) : format_(format), pool_(pool), fitter_(format, pool) {}

  /// As KvStore::Seal. After an error the pages that could not be sealed are open as before.
  Status Seal(const Team& team, Sequence& sequence);
  /// Spent in Seal, fitting bases included.
  double seconds() const { return seconds_; }

 private:
  /// A page on its way from open to sealed.
  struct PageSeal {
    int64_t page;
    std::shared_ptr<SealedPage> sealed;
    std::shared_ptr<PoolSlot> maybe_sinks;  ///< page 0 of a sequence with sinks
    bool failed = false;
  };

  void SealAll(const Team& team, Sequence& sequence);
  Status Plan(const Sequence& sequence);
  bool Reserve(PageSeal& seal);
  void EncodeShare(const Team& team, Sequence& sequence);
  Status EncodeBlock(Sequence& sequence, PageSeal& seal, int head, RowScratch& scratch) const;
  /// The classes that the codec shall see. Null: all ordinary; else `classes`, filled.
  const TokenClass* ClassesOf(const Sequence& sequence, const PageSeal& seal, TokenClasses& classes) const;
  void KeepSinks(const std::byte* open_block, PageSeal& seal, int head) const;
  void ReplaceSinks(float* rows, BlockContext& context, int32_t* positions) const;
  void Commit(Sequence& sequence);

  const StoreFormat* format_;
  PagePool* pool_;
  BasisFitter fitter_;
  TeamStatus status_;
  std::vector<PageSeal> batch_;
  double seconds_ = 0;
};

}  // namespace kvant
