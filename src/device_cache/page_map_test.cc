#include "device_cache/page_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>

#include "page/block_layout.h"

namespace kvant {
namespace {

using Kind = MappedPage::Kind;

// A device whose slots hold a number per row, and does what the map says.
class FakeDevice {
 public:
  explicit FakeDevice(const PageMapConfig& config) : config_(config), map_(config) {}

  void Write(const std::vector<CellPlace>& cells) {
    const PageMap::WritePlan plan = map_.PlanWrite(cells);
    const PageChanges changes = map_.Commit(plan);
    EXPECT_LE(map_.exact().end(), plan.exact_end);
    EXPECT_LE(map_.sealed().end(), plan.sealed_end);
    Prepare(changes);
    for (size_t i = 0; i < cells.size(); ++i) {
      exact_[changes.targets[i] / kTokensPerPage][static_cast<size_t>(changes.targets[i] % kTokensPerPage)] = ++last_;
      rows_[{cells[i].stream, cells[i].row}] = last_;
    }
    for (const SlotPair& pair : changes.sealed) sealed_[pair.to] = exact_[pair.from];
  }

  void Restore(int stream, int64_t first, int64_t count) {
    const PageMap::RestorePlan plan = map_.PlanRestore(stream, first, count);
    std::vector<int32_t> slots;
    const PageChanges changes = map_.Commit(plan, &slots);
    EXPECT_LE(map_.exact().end(), plan.exact_end);
    EXPECT_LE(map_.sealed().end(), plan.sealed_end);
    Prepare(changes);
    for (int64_t row = first; row < first + count; ++row) rows_[{stream, row}] = ++last_;
    for (size_t i = 0; i < slots.size(); ++i) {
      for (int t = 0; t < kTokensPerPage; ++t) {
        sealed_[slots[i]][static_cast<size_t>(t)] = rows_[{stream, plan.sealed[i].page * kTokensPerPage + t}];
      }
    }
    size_t target = 0;
    for (const auto& page : plan.exact) {
      for (int t = 0; t < kTokensPerPage; ++t) {
        if ((page.rows >> t & 1) == 0) continue;
        const int32_t to = changes.targets[target++];
        exact_[to / kTokensPerPage][static_cast<size_t>(to % kTokensPerPage)] =
            rows_[{stream, page.page * kTokensPerPage + t}];
      }
    }
    EXPECT_EQ(target, changes.targets.size());
  }

  void Fork(int from, int to) {
    map_.Fork(from, to);
    std::erase_if(rows_, [&](const auto& row) { return row.first.first == to && from != to; });
    std::map<std::pair<int, int64_t>, int> copy;
    for (const auto& [place, value] : rows_) {
      if (place.first == from) copy[{to, place.second}] = value;
    }
    rows_.insert(copy.begin(), copy.end());
  }

  void Truncate(int stream, int64_t rows) {
    map_.Truncate(stream, rows);
    std::erase_if(rows_, [&](const auto& row) { return row.first.first == stream && row.first.second >= rows; });
  }

  void Unshare(int stream) {
    const PageMap::WritePlan plan = map_.PlanUnshare(stream);
    Prepare(map_.CommitUnshare(stream));
    EXPECT_LE(map_.exact().end(), plan.exact_end);
    EXPECT_LE(map_.sealed().end(), plan.sealed_end);
    for (const MappedPage& page : map_.pages(stream)) {
      if (page.kind == Kind::kNone) continue;
      EXPECT_FALSE((page.kind == Kind::kExact ? map_.exact() : map_.sealed()).Shared(page.slot));
    }
  }

  void Check() {
    std::map<std::pair<int, int64_t>, int> held;
    for (int s = 0; s < config_.streams; ++s) {
      int64_t last = 0;
      for (size_t i = 0; i < map_.pages(s).size(); ++i) {
        const MappedPage& page = map_.pages(s)[i];
        EXPECT_EQ(page.kind == Kind::kNone, page.rows == 0);
        for (int t = 0; t < kTokensPerPage; ++t) {
          if ((page.rows >> t & 1) == 0) continue;
          const auto& slots = page.kind == Kind::kExact ? exact_ : sealed_;
          const int64_t row = static_cast<int64_t>(i) * kTokensPerPage + t;
          held[{s, row}] = slots.at(page.slot)[static_cast<size_t>(t)];
          last = row + 1;
        }
      }
      EXPECT_EQ(map_.num_rows(s), last);
    }
    EXPECT_EQ(held, rows_);
    EXPECT_EQ(map_.rows_held(), std::ssize(rows_));
  }

  PageMap& map() { return map_; }

 private:
  void Prepare(const PageChanges& changes) {
    for (const SlotPair& pair : changes.copied_exact) exact_[pair.to] = exact_[pair.from];
    for (const SlotPair& pair : changes.copied_sealed) sealed_[pair.to] = sealed_[pair.from];
    for (const SlotPair& pair : changes.opened) exact_[pair.to] = sealed_[pair.from];
    for (const int32_t slot : changes.cleared) exact_[slot] = {};
  }

  using Rows = std::array<int, kTokensPerPage>;
  PageMapConfig config_;
  PageMap map_;
  std::map<int32_t, Rows> exact_, sealed_;
  std::map<std::pair<int, int64_t>, int> rows_;
  int last_ = 0;
};

std::vector<CellPlace> Cells(int stream, int64_t first, int64_t count) {
  std::vector<CellPlace> cells;
  for (int64_t i = 0; i < count; ++i) cells.push_back({stream, first + i});
  return cells;
}

TEST(SlotTable, TakesTheLowestSlotAndShrinks) {
  SlotTable slots;
  for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(slots.Take(), i);
  slots.Drop(1);
  slots.Drop(3);
  EXPECT_EQ(slots.end(), 3);
  EXPECT_EQ(slots.used(), 2);
  EXPECT_EQ(slots.EndAfter(1), 3);
  EXPECT_EQ(slots.EndAfter(3), 5);
  EXPECT_EQ(slots.Take(), 1);
  slots.Share(2);
  slots.Drop(2);
  EXPECT_EQ(slots.end(), 3);
  slots.Drop(2);
  EXPECT_EQ(slots.end(), 2);
}

TEST(PageMap, SealsFullPagesThatAreNotRecent) {
  FakeDevice device({.streams = 1, .sink_tokens = 0, .recent_tokens = 32});
  device.Write(Cells(0, 0, 64));
  EXPECT_EQ(device.map().pages(0)[0].kind, Kind::kExact);
  device.Write(Cells(0, 64, 31));
  EXPECT_EQ(device.map().pages(0)[0].kind, Kind::kExact);
  device.Write(Cells(0, 95, 1));
  EXPECT_EQ(device.map().pages(0)[0].kind, Kind::kSealed);
  EXPECT_EQ(device.map().pages(0)[1].kind, Kind::kExact);
  EXPECT_EQ(device.map().exact().used(), 1);
  device.Check();
}

TEST(PageMap, FirstPageWithSinksStaysExact) {
  FakeDevice device({.streams = 1, .sink_tokens = 4, .recent_tokens = 0});
  device.Write(Cells(0, 0, 192));
  EXPECT_EQ(device.map().pages(0)[0].kind, Kind::kExact);
  EXPECT_EQ(device.map().pages(0)[1].kind, Kind::kSealed);
  EXPECT_EQ(device.map().pages(0)[2].kind, Kind::kSealed);
  device.Check();
}

TEST(PageMap, WritingToASealedPageOpensIt) {
  FakeDevice device({.streams = 1, .sink_tokens = 0, .recent_tokens = 0});
  device.Write(Cells(0, 0, 70));
  ASSERT_EQ(device.map().pages(0)[0].kind, Kind::kSealed);
  device.Truncate(0, 60);
  EXPECT_EQ(device.map().pages(0)[0].kind, Kind::kSealed) << "what is left stays as it is";
  device.Write(Cells(0, 60, 2));
  EXPECT_EQ(device.map().pages(0)[0].kind, Kind::kExact);
  EXPECT_EQ(device.map().sealed().used(), 0);
  device.Check();
}

TEST(PageMap, CopiesShareUntilTheyAreWritten) {
  FakeDevice device({.streams = 2, .sink_tokens = 0, .recent_tokens = 0});
  device.Write(Cells(0, 0, 100));
  device.Fork(0, 1);
  EXPECT_TRUE(device.map().Fork(0, 1)) << "the next tensor of the same copy";
  EXPECT_EQ(device.map().exact().used(), 1);
  EXPECT_EQ(device.map().sealed().used(), 1);
  device.Write(Cells(1, 100, 1));
  EXPECT_EQ(device.map().exact().used(), 2);
  device.Check();
}

TEST(PageMap, RestoringFillsSealedPagesOnceForAllTensors) {
  FakeDevice device({.streams = 1, .sink_tokens = 4, .recent_tokens = 0});
  for (int tensor = 0; tensor < 3; ++tensor) {
    device.Restore(0, 0, 300);
    device.Check();
    EXPECT_EQ(device.map().sealed().used(), 3);
    EXPECT_EQ(device.map().exact().used(), 2);
  }
}

TEST(PageMap, HoldsWhatAListOfRowsHolds) {
  for (const unsigned seed : {1u, 2u, 3u, 4u}) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    FakeDevice device({.streams = 3, .sink_tokens = seed % 2 == 0 ? 4 : 0, .recent_tokens = below(100)});
    for (int step = 0; step < 400 && !testing::Test::HasFailure(); ++step) {
      const int stream = below(3);
      const int64_t end = device.map().num_rows(stream);
      switch (below(8)) {
        case 0:
          device.Fork(stream, below(3));
          break;
        case 1:
          device.Truncate(stream, below(static_cast<int>(end) + 1));
          break;
        case 2:
          device.Restore(stream, below(static_cast<int>(end) + 1), 1 + below(200));
          break;
        case 3:
          device.Unshare(stream);
          break;
        case 4: {  // rows anywhere, of two streams
          std::vector<CellPlace> cells = Cells(stream, below(400), 1 + below(5));
          for (const CellPlace& cell : Cells((stream + 1) % 3, below(400), 1 + below(5))) cells.push_back(cell);
          device.Write(cells);
          break;
        }
        default:
          device.Write(Cells(stream, end, 1 + below(below(2) ? 150 : 3)));
      }
      device.Check();
    }
  }
}

}  // namespace
}  // namespace kvant
