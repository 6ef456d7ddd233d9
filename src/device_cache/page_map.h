// Which slot of a device's pools holds which rows: the host's side of a cache on a device.
//
// All layers, and K and V, get the same rows, so one map serves them all: a slot has room for a page of every layer. Pages
// are exact (fp16) or sealed (codes). Whatever changes is decided here, before anything runs: Plan says what a batch of
// rows will take, Commit makes it so and says what the device has to do. Slots are shared by streams that were copied and
// copied when one of them is written to.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "device_cache/slot_table.h"

namespace kvant {

/// A row of a cache: `row` of `stream`.
struct CellPlace {
  int stream;
  int64_t row;
  bool operator==(const CellPlace&) const = default;
};

struct MappedPage {
  enum class Kind : uint8_t { kNone, kExact, kSealed };
  Kind kind = Kind::kNone;
  int32_t slot = -1;
  uint64_t rows = 0;  ///< bit t: row t is held
};

struct PageMapConfig {
  int streams = 1;
  int sink_tokens = 0;  ///< > 0: the first page of a stream stays exact
  int recent_tokens = 0;
};

struct SlotPair {
  int32_t from;
  int32_t to;
  bool operator==(const SlotPair&) const = default;
};

/// What the device has to do, in this order, before rows are written to `targets`; then, after attention, `sealed`.
struct PageChanges {
  std::vector<SlotPair> copied_exact;   ///< exact slots, whole
  std::vector<SlotPair> copied_sealed;  ///< sealed slots, whole
  std::vector<SlotPair> opened;         ///< sealed to exact: decode
  std::vector<int32_t> cleared;         ///< exact slots: zeros
  std::vector<int32_t> targets;         ///< [rows]: 64 * exact slot + row of the page
  std::vector<SlotPair> sealed;         ///< exact to sealed: encode. The exact slots are free once that is done
};

class PageMap {
 public:
  explicit PageMap(const PageMapConfig& config);

  /// What a batch of rows will do to the map.
  struct WritePlan {
    std::vector<CellPlace> rows;
    struct Touched {
      int stream;
      int64_t page;
      uint64_t rows;
    };
    std::vector<Touched> pages;  ///< each once
    std::vector<Touched> due;    ///< to be sealed afterwards
    int64_t exact_end = 0;       ///< slots that the pools must have room for
    int64_t sealed_end = 0;
  };
  /// REQUIRES: streams and rows in range.
  WritePlan PlanWrite(std::span<const CellPlace> rows) const;
  PageChanges Commit(const WritePlan& plan);

  /// Rows first .. first + count - 1 are about to come from a saved state, tensor by tensor: pages that they fill go straight to sealed
  /// slots, unless they are recent; the others are exact. For the second tensor and those after it nothing changes any more.
  struct RestorePlan {
    int stream;
    int64_t first, count;
    std::vector<WritePlan::Touched> sealed, exact;
    int64_t exact_end = 0, sealed_end = 0;
  };
  RestorePlan PlanRestore(int stream, int64_t first, int64_t count) const;
  /// `changes.targets` are those of exact rows in order; `sealed_slots` those of plan.sealed.
  PageChanges Commit(const RestorePlan& plan, std::vector<int32_t>* sealed_slots);

  /// Copies all shared pages of a stream, which is about to be changed in place.
  WritePlan PlanUnshare(int stream) const;
  PageChanges CommitUnshare(int stream);

  /// `to` becomes a copy of `from`. True when it was one already.
  bool Fork(int from, int to);
  void Truncate(int stream, int64_t rows);
  void Clear(int stream);

  std::span<const MappedPage> pages(int stream) const { return streams_[static_cast<size_t>(stream)].pages; }
  int64_t num_rows(int stream) const { return streams_[static_cast<size_t>(stream)].num_rows; }
  int64_t rows_held() const;
  const SlotTable& exact() const { return exact_; }
  const SlotTable& sealed() const { return sealed_; }

 private:
  struct Stream {
    std::vector<MappedPage> pages;
    std::set<int64_t> exact;  ///< numbers of exact pages
    int64_t num_rows = 0;     ///< one past the highest row held
  };
  Stream& stream(int s) { return streams_[static_cast<size_t>(s)]; }
  const Stream& stream(int s) const { return streams_[static_cast<size_t>(s)]; }
  MappedPage& PageAt(int stream, int64_t page);
  MappedPage Find(int stream, int64_t page) const;
  bool NeedsSlot(const MappedPage& page) const;
  bool IsDue(int64_t page, uint64_t rows, int64_t num_rows) const;
  void MakeExact(int stream, int64_t page, PageChanges* changes);
  void Release(Stream& stream, int64_t page);
  void UpdateNumRows(Stream& stream);

  PageMapConfig config_;
  std::vector<Stream> streams_;
  SlotTable exact_;
  SlotTable sealed_;
};

}  // namespace kvant
