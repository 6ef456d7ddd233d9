// Memory of all pages of a cache: slots on demand, a limit in bytes, free lists by slot size.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "kvant/status.h"

namespace kvant {

/// Thread-safe. Slots are 64-byte aligned. Memory is taken from the system in small chunks and freed slots are
/// reused for the same size, so the process grows by what is held.
class PagePool {
 public:
  /// limit_bytes 0: none.
  explicit PagePool(size_t limit_bytes = 0) : limit_bytes_(limit_bytes) {}
  ~PagePool();

  /// Null when the limit or the machine's memory is reached. Contents are undefined.
  std::byte* Allocate(size_t bytes);
  void Free(std::byte* slot, size_t bytes);

  size_t limit_bytes() const { return limit_bytes_; }
  size_t used_bytes() const;      ///< slots handed out
  size_t reserved_bytes() const;  ///< taken from the system

 private:
  size_t limit_bytes_;
  mutable std::mutex mutex_;
  size_t used_bytes_ = 0;
  size_t reserved_bytes_ = 0;
  std::map<size_t, std::vector<std::byte*>> free_;
  std::vector<void*> chunks_;
};

}  // namespace kvant
