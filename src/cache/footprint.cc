#include "cache/footprint.h"

#include <unordered_set>

namespace kvant {
namespace {

/// Adds each object once, however many sequences share it.
class Adder {
 public:
  explicit Adder(const StoreFormat& format) : format_(format) {}

  void AddSequence(const Sequence& sequence) {
    for (const Page& page : sequence.pages()) {
      if (page.open) Add(StreamKind::kExact, page.open.bytes());
      if (page.positions) Add(StreamKind::kPositions, page.positions.bytes());
      if (page.sealed != nullptr && IsNew(page.sealed.get())) AddSealed(*page.sealed);
    }
    if (sequence.maybe_sinks() != nullptr && IsNew(sequence.maybe_sinks())) {
      Add(StreamKind::kExact, sequence.maybe_sinks()->bytes());
    }
    AddBasis(sequence.maybe_basis().get());
    footprint_.rows += static_cast<size_t>(sequence.rows_held());
  }

  Footprint Take() {
    footprint_.values = footprint_.rows * format_.row_values();
    return footprint_;
  }

 private:
  bool IsNew(const void* object) { return seen_.insert(object).second; }
  void Add(StreamKind kind, size_t bytes) { footprint_.by_kind[static_cast<int>(kind)] += bytes; }

  void AddSealed(const SealedPage& page) {
    const std::vector<Stream>& streams = format_.sealed.state->layout.streams();
    const size_t blocks = static_cast<size_t>(format_.kv_heads);
    for (size_t i = 0; i < streams.size(); ++i) {
      // Padding after a stream belongs to it, so that the kinds add up to the bytes held.
      const size_t end = i + 1 < streams.size() ? streams[i + 1].byte_ofs : format_.sealed.block_bytes();
      Add(streams[i].kind, blocks * (end - streams[i].byte_ofs));
    }
    AddBasis(page.maybe_basis.get());
  }

  void AddBasis(const Basis* maybe_basis) {
    if (maybe_basis != nullptr && IsNew(maybe_basis)) Add(StreamKind::kBases, maybe_basis->slot.bytes());
  }

  const StoreFormat& format_;
  std::unordered_set<const void*> seen_;
  Footprint footprint_;
};

}  // namespace

size_t Footprint::total() const {
  size_t total = 0;
  for (const size_t bytes : by_kind) total += bytes;
  return total;
}

Footprint& Footprint::operator+=(const Footprint& other) {
  for (int kind = 0; kind < kNumStreamKinds; ++kind) by_kind[kind] += other.by_kind[kind];
  rows += other.rows;
  values += other.values;
  return *this;
}

Footprint MeasureFootprint(const StoreFormat& format, std::span<const Sequence> sequences) {
  Adder adder(format);
  for (const Sequence& sequence : sequences) adder.AddSequence(sequence);
  return adder.Take();
}

}  // namespace kvant
