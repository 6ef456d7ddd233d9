#include "cache/basis.h"

#include <algorithm>
#include <cstring>

namespace kvant {

std::shared_ptr<Basis> NewBasis(const StoreFormat& format, PagePool* pool) {
  auto basis = std::make_shared<Basis>();
  basis->slot = PoolSlot(pool, static_cast<size_t>(format.num_bases()) * format.basis_stride_bytes());
  if (!basis->slot) return nullptr;
  std::memset(basis->slot.data(), 0, basis->slot.bytes());
  for (int head = 0; head < format.kv_heads; ++head) {
    const size_t index = static_cast<size_t>(std::min(head, format.num_bases() - 1));
    basis->of_heads.push_back(basis->slot.data() + index * format.basis_stride_bytes());
  }
  return basis;
}

Result<std::shared_ptr<const Basis>> CalibratedBasis(const StoreFormat& format, const SharedBases& maybe_bases,
                                                     PagePool* pool) {
  if (maybe_bases == nullptr) {
    if (!format.sealed.state->needs_calibration) return std::shared_ptr<const Basis>();
    return Status::NotFound(format.Where() + ": the codec needs calibrated bases, and there are none");
  }
  const size_t bytes = format.sealed.state->basis_bytes;
  if (maybe_bases->size() != static_cast<size_t>(format.num_bases()) * bytes) {
    return Status::InvalidArgument(StrFormat("%s: calibrated bases have %zu bytes instead of %d times %zu",
                                             format.Where().c_str(), maybe_bases->size(), format.num_bases(), bytes));
  }
  std::shared_ptr<Basis> basis = NewBasis(format, pool);
  if (basis == nullptr) return pool->OutOfMemory(format.Where());
  for (size_t i = 0; i < static_cast<size_t>(format.num_bases()); ++i) {
    std::memcpy(basis->slot.data() + i * format.basis_stride_bytes(), maybe_bases->data() + i * bytes, bytes);
  }
  return std::shared_ptr<const Basis>(std::move(basis));
}

}  // namespace kvant
