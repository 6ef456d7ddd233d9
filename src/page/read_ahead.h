// What a reader will need next, fetched into the cache a few lines at a time while it computes. Fetched at once, the
// lines of a block exceed what a core can have under way, and the core waits.
#pragma once

#include <cstddef>

namespace kvant {

/// A few byte ranges, the one added last first. Kernels with long loops take a few lines per step; whoever filled it takes the rest.
class ReadAhead {
 public:
  /// Lines per step that keep up with memory, for a step of some 10 to 20 ns: 64 bytes each at 20 GB/s per core.
  static constexpr int kLinesPerStep = 4;

  /// At most kMaxRanges before Rest.
  void Add(const std::byte* data, size_t bytes) { ranges_[count_++] = {data, data + bytes}; }

  void Prefetch(int lines = kLinesPerStep) {
    while (count_ > 0 && lines > 0) {
      Range& range = ranges_[count_ - 1];
      for (; lines > 0 && range.next < range.end; --lines, range.next += 64) __builtin_prefetch(range.next);
      if (range.next >= range.end) --count_;
    }
  }
  void Rest() {
    for (; count_ > 0; --count_) {
      for (Range& range = ranges_[count_ - 1]; range.next < range.end; range.next += 64) __builtin_prefetch(range.next);
    }
  }

  static constexpr int kMaxRanges = 4;

 private:
  struct Range {
    const std::byte* next;
    const std::byte* end;
  };
  Range ranges_[kMaxRanges];
  int count_ = 0;
};

}  // namespace kvant
