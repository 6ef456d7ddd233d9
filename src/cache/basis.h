// Bases as pages refer to them: fitted to a segment, or calibrated and the same for all pages.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "cache/page_pool.h"
#include "cache/store_format.h"
#include "codec/calibrated.h"

namespace kvant {

/// Shared by the pages of a segment, and by forks; a calibrated one by all sequences.
struct Basis {
  PoolSlot slot;                           ///< [num_bases, basis_stride_bytes]
  std::vector<const std::byte*> of_heads;  ///< [kv_heads], into the slot
};

/// Room for the bases of all heads, zeros. Null: the pool is out of memory.
std::shared_ptr<Basis> NewBasis(const StoreFormat& format, PagePool* pool);

/// The calibrated one. Null inside: the store has none. `maybe_bases` as in KvStoreConfig. Errors: OutOfMemory, NotFound
/// (the codec needs one), InvalidArgument (another size).
Result<std::shared_ptr<const Basis>> CalibratedBasis(const StoreFormat& format, const SharedBases& maybe_bases,
                                                     PagePool* pool);

}  // namespace kvant
