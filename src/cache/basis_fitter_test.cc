// When a basis is fitted, to which rows, and who shares it.
#include "cache/basis_fitter.h"

#include "cache/store_test_util.h"

namespace kvant::test {
namespace {

/// The fitted bases of the runs of head `head`, in row order; null for runs of coded pages without one.
std::vector<const GridBasis*> Bases(const KvStore& store, int sequence, size_t head = 0) {
  std::vector<const GridBasis*> bases;
  for (const PageRun& run : store.View(sequence)) {
    if (run.codec->info != &kGridInfo) continue;
    bases.push_back(run.bases.empty() ? nullptr : reinterpret_cast<const GridBasis*>(run.bases[head]));
  }
  return bases;
}

double Mean(int64_t first, int64_t end, int head) {
  double sum = 0;
  for (int64_t row = first; row < end; ++row) {
    for (int c = 0; c < kDim; ++c) sum += static_cast<double>(TestValue(row, head, c));
  }
  return sum / static_cast<double>((end - first) * kDim);
}

TEST(BasisFitter, FirstFitUsesAllRowsAfterTheSinks) {
  TestStore store({.sink_tokens = 4, .codec = {.basis_min_tokens = 100}});
  store.Append(0, 0, 70);  // too few: page 0 is coded without a basis
  ASSERT_EQ(Bases(*store.store, 0), std::vector<const GridBasis*>{nullptr});
  store.Append(0, 70, 200);
  for (size_t head = 0; head < kHeads; ++head) {
    const auto bases = Bases(*store.store, 0, head);
    ASSERT_EQ(bases.size(), 2u);
    EXPECT_EQ(bases[0], nullptr);
    EXPECT_EQ(bases[1]->tokens, 196.0f);
    EXPECT_NEAR(bases[1]->origin, Mean(4, 200, static_cast<int>(head)), 0.1);  // page 0 was read back coded
    EXPECT_EQ(store.ReadValue(0, 100, static_cast<int>(head), 2),
              ToFloat(ToF16(OnGrid(TestValue(100, static_cast<int>(head), 2), bases[1]->origin))));
  }
}

TEST(BasisFitter, SinksCountTowardsTheMinimum) {
  TestStore store({.sink_tokens = 4, .codec = {.basis_min_tokens = 64}});
  store.Append(0, 0, 64);
  ASSERT_EQ(Bases(*store.store, 0).size(), 1u);
  EXPECT_EQ(Bases(*store.store, 0)[0]->tokens, 60.0f);
}

TEST(BasisFitter, RefitsToTheRowsSinceTheLastFit) {
  TestStore store({.codec = {.basis_min_tokens = 64, .basis_refit_tokens = 128}});
  store.Append(0, 0, 64);
  store.Append(0, 64, 128);   // too early
  store.Append(0, 128, 192);  // 128 rows since
  store.Append(0, 192, 300);
  const auto bases = Bases(*store.store, 0);
  ASSERT_EQ(bases.size(), 2u);
  EXPECT_EQ(bases[0]->tokens, 64.0f);
  EXPECT_EQ(bases[1]->tokens, 128.0f);
  EXPECT_NEAR(bases[1]->origin, Mean(64, 192, 0), 0.1);
  EXPECT_EQ(store->View(0)[0].pages.size(), 2u);  // pages keep the basis of their segment
  EXPECT_EQ(store->View(0)[1].pages.size(), 2u);
  EXPECT_EQ(store->footprint().total(), store.pool.used_bytes());
}

TEST(BasisFitter, WithoutRefitTheFirstBasisStays) {
  TestStore store({.codec = {.basis_min_tokens = 64}});
  store.Append(0, 0, 64);
  store.Append(0, 64, 1024);
  EXPECT_EQ(Bases(*store.store, 0).size(), 1u);
}

TEST(BasisFitter, OneBasisPerLayerServesAllHeads) {
  TestStore store({.codec = {.basis_min_tokens = 64, .basis_per_layer = true}});
  store.Append(0, 0, 64);
  EXPECT_EQ(Bases(*store.store, 0, 0), Bases(*store.store, 0, 1));
  EXPECT_EQ(Bases(*store.store, 0)[0]->tokens, 64.0f * kHeads);
  EXPECT_NEAR(Bases(*store.store, 0)[0]->origin, (Mean(0, 64, 0) + Mean(0, 64, 1)) / 2, 1e-3);
  EXPECT_EQ(store->footprint().by_kind[static_cast<int>(StreamKind::kBases)], 64u);
}

TEST(BasisFitter, ForksShareBases) {
  TestStore store({.codec = {.basis_min_tokens = 64, .basis_refit_tokens = 64}});
  store.Append(0, 0, 64);
  const size_t before = store.pool.used_bytes();
  ASSERT_TRUE(store->Fork(0, 1).ok());
  EXPECT_EQ(store.pool.used_bytes(), before);
  store->Clear(0);
  EXPECT_EQ(Bases(*store.store, 1)[0]->tokens, 64.0f);
  EXPECT_EQ(store->footprint().total(), store.pool.used_bytes());
}

TEST(BasisFitter, LongPromptsAreSampled) {
  TestStore store({.codec = {.basis_min_tokens = 64}});
  store.Append(0, 0, 10000);
  const float tokens = Bases(*store.store, 0)[0]->tokens;
  EXPECT_GT(tokens, 3000.0f);
  EXPECT_LE(tokens, 4096.0f);
  EXPECT_NEAR(Bases(*store.store, 0)[0]->origin, Mean(0, 10000, 0), 0.5);
}

TEST(BasisFitter, ANewTextGetsItsOwnBasis) {
  TestStore store({.codec = {.basis_min_tokens = 64}});
  store.Append(0, 0, 128);
  ASSERT_TRUE(store->Truncate(0, 10).ok());
  store.Append(0, 10, 192, 3);
  const auto bases = Bases(*store.store, 0);
  ASSERT_EQ(bases.size(), 1u);
  EXPECT_EQ(bases[0]->tokens, 192.0f);
}

TEST(BasisFitter, RowsWrittenAgainCountForARefit) {
  TestStore store({.codec = {.basis_min_tokens = 64, .basis_refit_tokens = 128}});
  store.Append(0, 0, 128);
  store.Append(0, 0, 128, 5);  // another text in the same cells
  const auto bases = Bases(*store.store, 0);
  ASSERT_EQ(bases.size(), 1u);
  EXPECT_EQ(bases[0]->tokens, 128.0f);
  EXPECT_EQ(store->footprint().by_kind[static_cast<int>(StreamKind::kBases)],
            kHeads * 64u);  // the old one is gone
}

}  // namespace
}  // namespace kvant::test
