// Moves rows of a sequence to other positions: a context shift for codecs that keep keys before RoPE.
#pragma once

#include <cstdint>
#include <span>

#include "base/team.h"
#include "cache/page_pool.h"
#include "cache/sequence.h"
#include "cache/store_format.h"
#include "cache/team_status.h"
#include "kvant/status.h"

namespace kvant {

/// Sealed pages only get other positions; rows that are held exactly, as the model turned them, are turned on.
class PositionMover {
 public:
  PositionMover(const StoreFormat* format, PagePool* pool) : format_(format), pool_(pool) {}

  /// As KvStore::MovePositions.
  Status Move(const Team& team, Sequence& sequence, std::span<const int32_t> shift);

 private:
  /// Rows of one page that move, and by how much.
  struct PageShift {
    uint64_t rows = 0;
    int32_t by[kTokensPerPage] = {};
  };

  Status MoveAll(Sequence& sequence, std::span<const int32_t> shift) const;
  Status CheckPositions(const Sequence& sequence, std::span<const int32_t> shift) const;
  Status TurnSinks(Sequence& sequence, const PageShift& shift) const;
  static PageShift ShiftOf(const Sequence& sequence, int64_t page, std::span<const int32_t> shift);
  void TurnExact(const Codec& codec, const int32_t* positions, const PageShift& shift, uint64_t rows,
                 std::byte* blocks) const;

  const StoreFormat* format_;
  PagePool* pool_;
  TeamStatus status_;
};

}  // namespace kvant
