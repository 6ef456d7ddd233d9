#include "cache/page_pool.h"

#include <algorithm>

#include "base/aligned_buffer.h"
#include "base/check.h"

namespace kvant {
namespace {

// Chunks start small and grow with their class, so that what is reserved but not used stays near 1 / kGrowth
// of it. The largest keeps system calls rare and is still small beside a cache.
constexpr size_t kMinChunkBytes = size_t{64} << 10;
constexpr size_t kMaxChunkBytes = size_t{1} << 20;
constexpr size_t kGrowth = 32;
constexpr size_t kSystemPageBytes = 4096;

}  // namespace

PagePool::~PagePool() {
  for (auto& [slot_bytes, size_class] : classes_) {
    while (!size_class.chunks.empty()) ReleaseChunk(size_class, size_class.chunks.begin()->first);
  }
}

std::byte* PagePool::Allocate(size_t bytes) {
  const size_t slot_bytes = AlignUp(std::max<size_t>(bytes, 1));
  const std::lock_guard lock(mutex_);
  if (limit_bytes_ != 0 && slot_bytes > limit_bytes_ - used_bytes_) return nullptr;
  SizeClass& size_class = classes_[slot_bytes];
  if (size_class.not_full.empty() && !AddChunk(size_class, slot_bytes)) return nullptr;

  // The lowest address first: chunks at high addresses drain and can be released.
  std::byte* base = *size_class.not_full.begin();
  Chunk& chunk = size_class.chunks.at(base);
  if (chunk.used() == 0) --size_class.num_empty;
  std::byte* slot;
  if (chunk.freed.empty()) {
    slot = base + slot_bytes * chunk.next_slot++;
  } else {
    slot = chunk.freed.back();
    chunk.freed.pop_back();
  }
  if (chunk.used() == chunk.num_slots) size_class.not_full.erase(base);
  used_bytes_ += slot_bytes;
  return slot;
}

void PagePool::Free(std::byte* slot, size_t bytes) {
  if (slot == nullptr) return;
  const size_t slot_bytes = AlignUp(std::max<size_t>(bytes, 1));
  const std::lock_guard lock(mutex_);
  SizeClass& size_class = classes_.at(slot_bytes);
  const auto entry = std::prev(size_class.chunks.upper_bound(slot));
  Chunk& chunk = entry->second;
  KVANT_DCHECK(slot < entry->first + chunk.memory.bytes());
  chunk.freed.push_back(slot);
  size_class.not_full.insert(entry->first);
  used_bytes_ -= slot_bytes;
  if (chunk.used() != 0) return;
  // One empty chunk stays: pages are opened and sealed in turns, which should not become system calls.
  if (++size_class.num_empty > 1) ReleaseChunk(size_class, entry->first);
}

Status PagePool::OutOfMemory(const std::string& who) const {
  if (limit_bytes_ == 0) return Status::OutOfMemory(who + ": the machine has no memory left");
  return Status::OutOfMemory(StrFormat("%s: the cache holds %zu bytes and reached its memory limit of %zu", who.c_str(),
                                       used_bytes(), limit_bytes_));
}

size_t PagePool::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_;
}

size_t PagePool::reserved_bytes() const {
  const std::lock_guard lock(mutex_);
  return reserved_bytes_;
}

bool PagePool::AddChunk(SizeClass& size_class, size_t slot_bytes) {
  const size_t wanted = std::clamp(size_class.reserved_bytes / kGrowth, kMinChunkBytes, kMaxChunkBytes);
  const size_t num_slots = std::max<size_t>(1, wanted / slot_bytes);
  const size_t bytes = AlignUp(num_slots * slot_bytes, kSystemPageBytes);
  MappedMemory memory(bytes);
  std::byte* const base = memory.data();
  if (base == nullptr) return false;
  size_class.chunks[base] = {.memory = std::move(memory), .num_slots = num_slots, .freed = {}};
  size_class.not_full.insert(base);
  size_class.reserved_bytes += bytes;
  ++size_class.num_empty;
  reserved_bytes_ += bytes;
  return true;
}

void PagePool::ReleaseChunk(SizeClass& size_class, std::byte* base) {
  const Chunk& chunk = size_class.chunks.at(base);
  if (chunk.used() == 0) --size_class.num_empty;
  size_class.reserved_bytes -= chunk.memory.bytes();
  reserved_bytes_ -= chunk.memory.bytes();
  size_class.not_full.erase(base);
  size_class.chunks.erase(base);
}

}  // namespace kvant
