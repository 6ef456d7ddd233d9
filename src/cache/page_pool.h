// Memory of all pages of a cache: slots on demand, a limit in bytes, free lists by slot size.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mapped_memory.h"
#include "kvant/status.h"

namespace kvant {

/// Thread-safe. Slots are 64-byte aligned. Memory is taken from the system in chunks of slots of one size;
/// freed slots are reused for the same size, and a chunk whose slots are all free goes back to the system. So
/// the process grows by what is held.
class PagePool {
 public:
  /// limit_bytes 0: none. The limit counts slots handed out.
  explicit PagePool(size_t limit_bytes = 0) : limit_bytes_(limit_bytes) {}
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  /// Null when the limit or the machine's memory is reached. Contents are undefined.
  std::byte* Allocate(size_t bytes);
  /// `bytes` as in Allocate. A null `slot` is ignored.
  void Free(std::byte* slot, size_t bytes);

  /// What to report after Allocate gave null. `who` asked: "layer 3 K".
  Status OutOfMemory(const std::string& who) const;

  size_t limit_bytes() const { return limit_bytes_; }
  size_t used_bytes() const;      ///< slots handed out, each rounded up to whole cache lines
  size_t reserved_bytes() const;  ///< taken from the system

 private:
  struct Chunk {
    MappedMemory memory{};
    size_t num_slots = 0;
    size_t next_slot = 0;  ///< slots from here on were never handed out, so cost no memory yet
    std::vector<std::byte*> freed;
    size_t used() const { return next_slot - freed.size(); }
  };
  /// All chunks of one slot size, by address.
  struct SizeClass {
    std::map<std::byte*, Chunk> chunks;
    std::set<std::byte*> not_full;
    size_t reserved_bytes = 0;
    size_t num_empty = 0;  ///< chunks without a slot in use
  };

  bool AddChunk(SizeClass& size_class, size_t slot_bytes);
  void ReleaseChunk(SizeClass& size_class, std::byte* base);

  size_t limit_bytes_;
  mutable std::mutex mutex_;
  size_t used_bytes_ = 0;
  size_t reserved_bytes_ = 0;
  std::map<size_t, SizeClass> classes_;  ///< by slot bytes
};

/// One slot of a pool; gives it back when destroyed.
class PoolSlot {
 public:
  PoolSlot() = default;
  /// Empty (false) when the pool could not serve it.
  PoolSlot(PagePool* pool, size_t bytes) : pool_(pool), data_(pool->Allocate(bytes)), bytes_(bytes) {}
  PoolSlot(PoolSlot&& other) noexcept { *this = std::move(other); }
  PoolSlot& operator=(PoolSlot&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    other.Reset();
    return *this;
  }
  ~PoolSlot() { Reset(); }

  explicit operator bool() const { return data_ != nullptr; }
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void Reset() {
    if (data_ != nullptr) pool_->Free(data_, bytes_);
    data_ = nullptr;
  }

 private:
  PagePool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace kvant
