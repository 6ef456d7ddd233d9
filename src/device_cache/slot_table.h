// Numbers of slots in use, the lowest first, with counted references.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

namespace kvant {

class SlotTable {
 public:
  /// A slot with one reference.
  int32_t Take();
  void Share(int32_t slot) { ++references_[static_cast<size_t>(slot)]; }
  /// Gives up one reference.
  void Drop(int32_t slot);
  bool Shared(int32_t slot) const { return references_[static_cast<size_t>(slot)] > 1; }

  int64_t used() const { return end() - static_cast<int64_t>(free_.size()); }
  /// One past the highest slot in use.
  int64_t end() const { return static_cast<int64_t>(references_.size()); }
  /// end() after `count` further Take().
  int64_t EndAfter(int64_t count) const;

 private:
  std::vector<int32_t> references_;  ///< [end()]
  std::set<int32_t> free_;           ///< below end()
};

}  // namespace kvant
