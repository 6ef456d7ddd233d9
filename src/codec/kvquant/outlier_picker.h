// The values of a block that come first by some measure, as many as there are slots.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvant::kvquant {

/// 5 % of 64 x 256 values, a multiple of 16.
constexpr int kMaxSlots = 832;

struct Outlier {
  float key;       ///< the measure
  uint16_t place;  ///< PlaceOf
  float value;     ///< what the caller keeps with it
};

/// The order of offers does not matter: of equal keys the lower place comes first.
class OutlierPicker {
 public:
  explicit OutlierPicker(int slots) : slots_(static_cast<size_t>(slots)) {}

  /// Offers with a smaller key are in vain.
  float least_key() const { return slots_ == 0 ? kNever : size_ < slots_ ? 0.0f : heap_[0].key; }

  /// REQUIRES: key >= 0
  void Offer(const Outlier& outlier) {
    if (slots_ == 0) return;
    if (size_ == slots_) {
      if (!Precedes(outlier, heap_[0])) return;
      std::pop_heap(heap_, heap_ + size_--, Precedes);
    }
    heap_[size_++] = outlier;
    std::push_heap(heap_, heap_ + size_, Precedes);
  }

  /// To be called once, after the last offer: by place from here on.
  void Sort() {
    std::sort(heap_, heap_ + size_, [](const Outlier& a, const Outlier& b) { return a.place < b.place; });
  }
  std::span<Outlier> chosen() { return {heap_, size_}; }
  std::span<const Outlier> chosen() const { return {heap_, size_}; }

 private:
  static constexpr float kNever = 3.4e38f;
  static bool Precedes(const Outlier& a, const Outlier& b) {
    return a.key != b.key ? a.key > b.key : a.place < b.place;
  }

  size_t slots_;
  size_t size_ = 0;
  Outlier heap_[kMaxSlots];  // a heap whose first is the last in order
};

}  // namespace kvant::kvquant
