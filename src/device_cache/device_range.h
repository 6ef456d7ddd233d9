// Device memory that grows and shrinks in place: addresses for the most that may be needed, memory for what is.
#pragma once

#include <cstddef>
#include <vector>

#include "kvant/status.h"

namespace kvant {

/// One range on the current device. Addresses stay when it grows.
class DeviceRange {
 public:
  /// Addresses only. Errors: OutOfMemory, NotSupported (a driver without virtual memory management).
  static Result<DeviceRange> Reserve(size_t most_bytes);
  DeviceRange() = default;
  ~DeviceRange();
  DeviceRange(DeviceRange&& other) noexcept { *this = std::move(other); }
  DeviceRange& operator=(DeviceRange&& other) noexcept;

  std::byte* data() const { return base_; }
  /// Memory behind the addresses, from data() on.
  size_t bytes() const { return bytes_; }
  /// At least `bytes`. Errors: OutOfMemory; nothing is changed then.
  Status Grow(size_t bytes);
  /// Gives back what lies behind `bytes` in whole chunks. REQUIRES: nothing on the device uses it any more.
  void Shrink(size_t bytes);

 private:
  struct Chunk {
    unsigned long long handle;
    size_t bytes;
  };
  std::byte* base_ = nullptr;
  size_t reserved_ = 0;
  size_t granularity_ = 0;
  size_t bytes_ = 0;
  int device_ = 0;
  std::vector<Chunk> chunks_;

  bool AddChunk(size_t bytes);
};

}  // namespace kvant
