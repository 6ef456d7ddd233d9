// What the tests of the store share: a small store, rows with recognisable values, and readers of both kinds.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <vector>

#include "base/aligned_buffer.h"
#include "cache/kv_store.h"
#include "cache/page_pool.h"
#include "cache/test_codec.h"

namespace kvant::test {

constexpr int kHeads = 2;
constexpr int kDim = 16;
constexpr size_t kRowValues = size_t{kHeads} * kDim;

/// A value that tells row, head and channel apart; off the grid of the test codec and exact in fp16.
inline float TestValue(int64_t row, int head, int channel, int salt = 0) {
  return static_cast<float>((row * 7 + head * 3 + channel + salt * 5) % 64) + 0.0625f;
}

inline std::vector<float> TestRows(const std::vector<int64_t>& rows, int salt = 0) {
  std::vector<float> values;
  for (const int64_t row : rows) {
    for (int head = 0; head < kHeads; ++head) {
      for (int c = 0; c < kDim; ++c) values.push_back(TestValue(row, head, c, salt));
    }
  }
  return values;
}

inline std::vector<int64_t> Range(int64_t first, int64_t end) {
  std::vector<int64_t> rows(static_cast<size_t>(end - first));
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

struct StoreOptions {
  Side side = Side::kKey;
  int num_sequences = 3;
  int sink_tokens = 0;
  int recent_tokens = 0;
  size_t limit_bytes = 0;
  GridOptions codec = {};
  SharedBases maybe_bases = nullptr;
};

/// Calibrated bases of the test codec with these origins.
inline SharedBases GridBases(const std::vector<float>& origins) {
  std::vector<std::byte> bytes(origins.size() * sizeof(GridBasis));
  for (size_t i = 0; i < origins.size(); ++i) {
    const GridBasis basis = {.origin = origins[i], .tokens = 0.0f};
    std::memcpy(bytes.data() + i * sizeof(basis), &basis, sizeof(basis));
  }
  return std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

inline std::shared_ptr<const Rope> TestRope() { return *Rope::Make(RopeShape::OfBase(100, kDim, false), kDim); }

/// A store over its own pool, with the test codec.
struct TestStore {
  explicit TestStore(const StoreOptions& options = {}) : pool(options.limit_bytes) {
    auto created = KvStore::Create({.layer = 3,
                                    .kv_heads = kHeads,
                                    .num_sequences = options.num_sequences,
                                    .codec = GridCodec(options.side, kDim, options.codec),
                                    .maybe_bases = options.maybe_bases,
                                    .sink_tokens = options.sink_tokens,
                                    .recent_tokens = options.recent_tokens,
                                    .maybe_rope = options.codec.keys_before_rope ? TestRope() : nullptr},
                                   &pool);
    EXPECT_TRUE(created.ok()) << created.status().message();
    store = std::move(created.value());
  }
  KvStore* operator->() { return store.get(); }

  Status WriteValues(int sequence, const std::vector<int64_t>& rows, const std::vector<float>& values,
                     const Team& team = Team(), std::span<const int32_t> positions = {}) {
    return store->Write(team, sequence, rows, {.data = values.data(), .row_stride_bytes = kRowValues * sizeof(float)},
                        positions);
  }
  Status Write(int sequence, const std::vector<int64_t>& rows, int salt = 0) {
    return WriteValues(sequence, rows, TestRows(rows, salt));
  }
  /// Appends rows first..end-1 and seals what is due.
  void Append(int sequence, int64_t first, int64_t end, int salt = 0) {
    ASSERT_TRUE(Write(sequence, Range(first, end), salt).ok());
    const Status sealed = store->Seal(Team(), sequence);
    ASSERT_TRUE(sealed.ok()) << sealed.message();
  }

  /// [count][kRowValues] through KvStore::Read.
  std::vector<float> Read(int sequence, int64_t first, int64_t count, const Team& team = Team()) const {
    std::vector<F16> rows(static_cast<size_t>(count) * kRowValues, F16{0xFFFF});
    const Status status = store->Read(team, sequence, first, count, {.data = rows.data(), .row_stride = kRowValues});
    EXPECT_TRUE(status.ok()) << status.message();
    std::vector<float> values;
    for (const F16 value : rows) values.push_back(ToFloat(value));
    return values;
  }
  float ReadValue(int sequence, int64_t row, int head, int channel) const {
    return Read(sequence, row, 1)[static_cast<size_t>(head * kDim + channel)];
  }

  PagePool pool;  // outlives the store
  std::unique_ptr<KvStore> store;
};

/// A row as seen through KvStore::View.
struct SeenRow {
  int64_t row;
  bool exact;                 ///< in an open page or a sink block
  std::vector<float> values;  ///< [kRowValues]
};

/// Decodes all live rows of a view, in its order.
inline std::vector<SeenRow> ReadView(const KvStore& store, int sequence) {
  std::vector<SeenRow> seen;
  for (const PageRun& run : store.View(sequence)) {
    const size_t tokens = static_cast<size_t>(run.codec->shape().tokens);
    AlignedBuffer<float> rows(kHeads * tokens * kDim);
    for (const PageView& page : run.pages) {
      for (size_t head = 0; head < kHeads; ++head) {
        const Status status =
            run.codec->verbs.decode(*run.codec->state, run.Context(page, static_cast<int>(head)),
                                    page.blocks + head * run.codec->block_bytes(), rows.data() + head * tokens * kDim);
        EXPECT_TRUE(status.ok()) << status.message();
      }
      for (size_t t = 0; t < 64; ++t) {
        if ((page.live >> t & 1) == 0) continue;
        SeenRow row = {page.first_row + static_cast<int64_t>(t), run.codec->info != &kGridInfo, {}};
        for (size_t head = 0; head < kHeads; ++head) {
          const float* values = rows.data() + (head * tokens + t) * kDim;
          row.values.insert(row.values.end(), values, values + kDim);
        }
        seen.push_back(std::move(row));
      }
    }
  }
  return seen;
}

}  // namespace kvant::test
