#include "device_cache/slot_table.h"

#include <algorithm>

namespace kvant {

int32_t SlotTable::Take() {
  if (free_.empty()) {
    references_.push_back(1);
    return static_cast<int32_t>(references_.size()) - 1;
  }
  const int32_t slot = free_.extract(free_.begin()).value();
  references_[static_cast<size_t>(slot)] = 1;
  return slot;
}

void SlotTable::Drop(int32_t slot) {
  if (--references_[static_cast<size_t>(slot)] > 0) return;
  free_.insert(slot);
  while (!references_.empty() && references_.back() == 0) {
    free_.erase(static_cast<int32_t>(references_.size()) - 1);
    references_.pop_back();
  }
}

int64_t SlotTable::EndAfter(int64_t count) const {
  return end() + std::max<int64_t>(0, count - static_cast<int64_t>(free_.size()));
}

}  // namespace kvant
