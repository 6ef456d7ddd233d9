// Calibrated bases: there from the first page on, the same for all sequences, held and counted once.
#include "cache/basis.h"
#include "cache/store_test_util.h"

namespace kvant::test {
namespace {

constexpr size_t kBasesKind = static_cast<size_t>(StreamKind::kBases);
const std::vector<float> kOrigins = {0.125f, 0.1875f};

TestStore Calibrated(GridOptions codec = {.basis_min_tokens = 256, .basis_refit_tokens = 256}) {
  return TestStore({.sink_tokens = 4, .codec = codec, .maybe_bases = GridBases(kOrigins)});
}

/// The origins with which the sealed pages of a sequence are read, by head; all runs must agree.
std::vector<float> OriginsOf(const KvStore& store, int sequence) {
  std::vector<float> origins;
  for (const PageRun& run : store.View(sequence)) {
    if (run.codec->info != &kGridInfo) continue;
    std::vector<float> of_run;
    for (const std::byte* basis : run.bases) of_run.push_back(Origin(basis));
    EXPECT_TRUE(origins.empty() || origins == of_run);
    origins = of_run;
  }
  return origins;
}

TEST(CalibratedBasis, CodesTheFirstPageAlready) {
  TestStore store = Calibrated();
  store.Append(0, 0, 64);
  EXPECT_EQ(OriginsOf(*store.store, 0), kOrigins);
  for (int head = 0; head < kHeads; ++head) {
    EXPECT_EQ(store.ReadValue(0, 10, head, 3),
              ToFloat(ToF16(OnGrid(TestValue(10, head, 3), kOrigins[static_cast<size_t>(head)]))));
  }
}

TEST(CalibratedBasis, IsNeverFittedAnew) {
  TestStore store = Calibrated();
  for (int64_t first = 0; first < 1024; first += 128) store.Append(0, first, first + 128);
  EXPECT_EQ(OriginsOf(*store.store, 0), kOrigins);
  EXPECT_EQ(store->View(0).size(), 2u);  // sinks, and one run of pages
}

TEST(CalibratedBasis, StaysAfterTruncateAndClear) {
  TestStore store = Calibrated();
  store.Append(0, 0, 128);
  ASSERT_TRUE(store->Truncate(0, 10).ok());
  store.Append(0, 10, 128);
  EXPECT_EQ(OriginsOf(*store.store, 0), kOrigins);
  store->Clear(0);
  store.Append(0, 0, 64);
  EXPECT_EQ(OriginsOf(*store.store, 0), kOrigins);
}

TEST(CalibratedBasis, AllSequencesAndForksShareIt) {
  TestStore store = Calibrated();
  const size_t bases = store->footprint().by_kind[kBasesKind];
  EXPECT_EQ(bases, kHeads * 64u);  // held from the start
  EXPECT_EQ(store.pool.used_bytes(), bases);
  store.Append(0, 0, 64);
  store.Append(1, 0, 640);
  ASSERT_TRUE(store->Fork(0, 2).ok());
  store.Append(2, 64, 128);
  EXPECT_EQ(store->footprint().by_kind[kBasesKind], bases);
  EXPECT_EQ(store->footprint().total(), store.pool.used_bytes());
  EXPECT_EQ(OriginsOf(*store.store, 2), kOrigins);
  EXPECT_EQ(store->View(0)[1].bases.data(), store->View(1)[1].bases.data());
}

TEST(CalibratedBasis, OneMayServeAllHeads) {
  TestStore store({.codec = {.basis_min_tokens = 64, .basis_per_layer = true}, .maybe_bases = GridBases({0.125f})});
  store.Append(0, 0, 64);
  EXPECT_EQ(OriginsOf(*store.store, 0), (std::vector<float>{0.125f, 0.125f}));
}

Status CreateStore(const GridOptions& codec, SharedBases bases, size_t limit_bytes = 0) {
  PagePool pool(limit_bytes);
  return KvStore::Create({.kv_heads = kHeads, .codec = GridCodec(Side::kKey, kDim, codec), .maybe_bases = bases}, &pool)
      .status();
}

TEST(CalibratedBasis, RefusesWhatDoesNotFit) {
  const GridOptions needs = {.basis_min_tokens = 64, .needs_calibration = true};
  EXPECT_EQ(CreateStore(needs, GridBases(kOrigins)).code(), StatusCode::kOk);
  EXPECT_EQ(CreateStore(needs, nullptr).code(), StatusCode::kNotFound);
  EXPECT_EQ(CreateStore(needs, GridBases({0.125f})).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateStore(needs, GridBases(kOrigins), 64).code(), StatusCode::kOutOfMemory);
}

}  // namespace
}  // namespace kvant::test
