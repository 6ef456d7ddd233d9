// Decodes rows of a sequence to F16: state files, prefill, context shift.
#pragma once

#include <cstdint>

#include "base/team.h"
#include "cache/kv_store.h"
#include "cache/page_rows.h"
#include "cache/sequence.h"
#include "cache/store_format.h"
#include "cache/team_status.h"
#include "kvant/status.h"

namespace kvant {

/// Shared by the members of the team that reads.
class RowReader {
 public:
  explicit RowReader(const StoreFormat* format) : format_(format) {}

  /// As KvStore::Read.
  Status Read(const Team& team, const Sequence& sequence, int64_t first, int64_t count, const RowTarget& target);

 private:
  Status ReadPage(const Sequence& sequence, int64_t page, int head, int64_t first, int64_t end, const RowTarget& target,
                  RowScratch& scratch) const;

  const StoreFormat* format_;
  TeamStatus status_;
};

}  // namespace kvant
