#include "cache/kv_store.h"

#include <cmath>
#include <limits>

#include "cache/store_test_util.h"

namespace kvant::test {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr size_t kOpenPageBytes = 64 * kRowValues * sizeof(uint16_t);

/// Rows of the view that are exact, in order.
std::vector<int64_t> ExactRows(const KvStore& store, int sequence) {
  std::vector<int64_t> rows;
  for (const SeenRow& row : ReadView(store, sequence)) {
    if (row.exact) rows.push_back(row.row);
  }
  return rows;
}

// ---- write, seal, read

class BothSides : public ::testing::TestWithParam<Side> {};
INSTANTIATE_TEST_SUITE_P(KvStore, BothSides, ::testing::Values(Side::kKey, Side::kValue),
                         [](const auto& side) { return side.param == Side::kKey ? "K" : "V"; });

TEST_P(BothSides, OpenRowsAreExactAndSealedOnesCoded) {
  TestStore store({.side = GetParam()});
  ASSERT_TRUE(store.Write(0, Range(0, 100)).ok());
  EXPECT_EQ(store.Read(0, 0, 100), TestRows(Range(0, 100)));
  ASSERT_TRUE(store->Seal(Team(), 0).ok());
  EXPECT_EQ(ExactRows(*store.store, 0), Range(64, 100));
  EXPECT_EQ(store.ReadValue(0, 10, 1, 5), OnGrid(TestValue(10, 1, 5)));
  EXPECT_EQ(store.ReadValue(0, 70, 1, 5), TestValue(70, 1, 5));
  EXPECT_EQ(store->num_rows(0), 100);
}

TEST_P(BothSides, RowsInAnyOrderAndWithAStride) {
  TestStore store({.side = GetParam()});
  const std::vector<int64_t> rows = {200, 3, 130, 64, 63, 0, 129};
  std::vector<F16> source;
  for (const float value : TestRows(rows)) source.push_back(ToF16(value));
  std::vector<F16> spread(rows.size() * (kRowValues + 8), F16{0x7E00});  // NaN between the rows
  for (size_t i = 0; i < source.size(); ++i) spread[i / kRowValues * (kRowValues + 8) + i % kRowValues] = source[i];
  ASSERT_TRUE(store
                  ->Write(Team(), 0, rows,
                          {.data = spread.data(), .row_stride_bytes = (kRowValues + 8) * sizeof(F16), .is_f16 = true})
                  .ok());
  for (const int64_t row : rows) EXPECT_EQ(store.Read(0, row, 1), TestRows({row}));
  EXPECT_THAT(store.Read(0, 65, 60), Each(0.0f));  // never written
  EXPECT_THAT(store.Read(0, 1000, 3), Each(0.0f));
  EXPECT_EQ(ExactRows(*store.store, 0), (std::vector<int64_t>{0, 3, 63, 64, 129, 130, 200}));
  EXPECT_EQ(store->num_rows(0), 201);
  EXPECT_EQ(store->footprint().rows, rows.size());
}

TEST(KvStore, OfTwoValuesForOneRowTheLaterStays) {
  TestStore store;
  std::vector<float> values = TestRows({5}, 1);
  const std::vector<float> second = TestRows({5}, 2);
  values.insert(values.end(), second.begin(), second.end());
  ASSERT_TRUE(store.WriteValues(0, {5, 5}, values).ok());
  EXPECT_EQ(store.Read(0, 5, 1), second);
}

TEST(KvStore, RowsNeverWrittenAreFiniteInTheView) {
  TestStore store({.side = Side::kValue});
  {  // leaves NaN bytes in the pool's memory
    PoolSlot dirty(&store.pool, kOpenPageBytes);
    std::memset(dirty.data(), 0xFF, dirty.bytes());
  }
  ASSERT_TRUE(store.Write(0, {7}).ok());
  const PageRun& run = store->View(0)[0];
  AlignedBuffer<float> rows(64 * kDim);
  EXPECT_TRUE(run.codec->verbs.decode(*run.codec->state, {}, run.pages[0].blocks, rows.data()).ok());
  EXPECT_EQ(run.pages[0].live, uint64_t{1} << 7);
  EXPECT_EQ(rows[0], 0.0f);
}

TEST(KvStore, RewritingASealedRowOpensThePage) {
  TestStore store;
  store.Append(0, 0, 128);
  EXPECT_TRUE(ExactRows(*store.store, 0).empty());
  ASSERT_TRUE(store.Write(0, {70}, 9).ok());
  EXPECT_EQ(ExactRows(*store.store, 0), Range(64, 128));
  EXPECT_EQ(store.Read(0, 70, 1), TestRows({70}, 9));
  EXPECT_EQ(store.ReadValue(0, 71, 0, 0), OnGrid(TestValue(71, 0, 0)));
  ASSERT_TRUE(store->Seal(Team(), 0).ok());
  EXPECT_EQ(store.ReadValue(0, 70, 0, 0), OnGrid(TestValue(70, 0, 0, 9)));
  EXPECT_EQ(store.ReadValue(0, 71, 0, 0), OnGrid(TestValue(71, 0, 0)));
}

TEST(KvStore, RecentRowsStayOpen) {
  TestStore store({.recent_tokens = 100});
  store.Append(0, 0, 163);
  EXPECT_EQ(ExactRows(*store.store, 0), Range(0, 163));  // row 63 is one too young
  store.Append(0, 163, 164);
  EXPECT_EQ(ExactRows(*store.store, 0), Range(64, 164));
}

TEST(KvStore, AnUnfinishedPageBeforeOthersIsNotSealed) {
  TestStore store;
  store.Append(0, 1, 192);
  EXPECT_EQ(ExactRows(*store.store, 0), Range(1, 64));
  store.Append(0, 0, 1);
  EXPECT_TRUE(ExactRows(*store.store, 0).empty());
}

// ---- sinks

TEST(KvStore, SinksStayExact) {
  TestStore store({.sink_tokens = 5});
  store.Append(0, 0, 130);
  EXPECT_EQ(ExactRows(*store.store, 0), (std::vector<int64_t>{0, 1, 2, 3, 4, 128, 129}));
  EXPECT_EQ(store.Read(0, 0, 5), TestRows(Range(0, 5)));
  EXPECT_EQ(store.ReadValue(0, 5, 0, 0), OnGrid(TestValue(5, 0, 0)));
  const auto runs = store->View(0);
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].codec->shape().tokens, 16);
  EXPECT_EQ(runs[0].pages[0].live, 0x1Fu);
  EXPECT_EQ(runs[1].pages[0].live, ~uint64_t{0x1F});
}

TEST(KvStore, SinksAreCodedAsTheMeanOfTheOthers) {
  TestStore store({.sink_tokens = 4});
  std::vector<float> values(64 * kRowValues, 8.0f);
  for (size_t i = 0; i < 4 * kRowValues; ++i) values[i] = 60000.0f;  // the grid codec would refuse it
  ASSERT_TRUE(store.WriteValues(0, Range(0, 64), values).ok());
  ASSERT_TRUE(store->Seal(Team(), 0).ok());
  const PageRun& coded = store->View(0)[1];
  AlignedBuffer<float> rows(64 * kDim);
  ASSERT_TRUE(coded.codec->verbs.decode(*coded.codec->state, {}, coded.pages[0].blocks, rows.data()).ok());
  EXPECT_THAT(rows.span(), Each(8.0f));
  EXPECT_EQ(store.ReadValue(0, 3, 1, 0), 60000.0f);
}

TEST(KvStore, ReopenedSinkPageKeepsTheSinks) {
  TestStore store({.sink_tokens = 4});
  store.Append(0, 0, 64);
  ASSERT_TRUE(store.Write(0, {2, 30}, 8).ok());
  EXPECT_EQ(store.Read(0, 1, 1), TestRows({1}));
  EXPECT_EQ(store.Read(0, 2, 1), TestRows({2}, 8));
  ASSERT_TRUE(store->Seal(Team(), 0).ok());
  EXPECT_EQ(store.Read(0, 1, 1), TestRows({1}));
  EXPECT_EQ(store.Read(0, 2, 1), TestRows({2}, 8));
  EXPECT_EQ(store.ReadValue(0, 30, 0, 0), OnGrid(TestValue(30, 0, 0, 8)));
}

TEST(KvStore, WholePageOfSinksIsNeverSealed) {
  TestStore store({.sink_tokens = 64});
  store.Append(0, 0, 192);
  EXPECT_EQ(ExactRows(*store.store, 0), Range(0, 64));
}

// ---- sequences

TEST(KvStore, SequencesAreIndependent) {
  TestStore store;
  store.Append(0, 0, 70, 1);
  store.Append(2, 0, 10, 2);
  EXPECT_EQ(store->num_rows(1), 0);
  EXPECT_TRUE(store->View(1).empty());
  EXPECT_EQ(store.Read(2, 0, 10), TestRows(Range(0, 10), 2));
  store->Clear(2);
  EXPECT_EQ(store->num_rows(2), 0);
  EXPECT_EQ(store.Read(0, 64, 6), TestRows(Range(64, 70), 1));
}

TEST(KvStore, ForkSharesSealedPagesAndCopiesOpenOnes) {
  TestStore store({.sink_tokens = 4});
  store.Append(0, 0, 140);
  const size_t before = store.pool.used_bytes();
  ASSERT_TRUE(store->Fork(0, 1).ok());
  EXPECT_EQ(store.pool.used_bytes(), before + kOpenPageBytes);
  EXPECT_EQ(store->footprint().total(), store.pool.used_bytes());
  EXPECT_EQ(store->footprint().rows, 280u);

  ASSERT_TRUE(store.Write(1, {1, 20, 130}, 7).ok());  // a sink, a sealed row, an open row
  EXPECT_EQ(store.Read(0, 1, 1), TestRows({1}));
  EXPECT_EQ(store.ReadValue(0, 20, 0, 0), OnGrid(TestValue(20, 0, 0)));
  EXPECT_EQ(store.Read(0, 130, 1), TestRows({130}));
  store->Clear(0);
  EXPECT_EQ(store.Read(1, 1, 1), TestRows({1}, 7));
  EXPECT_EQ(store.Read(1, 2, 1), TestRows({2}));
  EXPECT_EQ(store.ReadValue(1, 100, 1, 1), OnGrid(TestValue(100, 1, 1)));
  EXPECT_TRUE(store->Fork(1, 1).ok());
  store->Clear(1);
  EXPECT_EQ(store.pool.used_bytes(), 0u);
}

TEST(KvStore, TruncateForgetsAndTheCutPageGoesOn) {
  TestStore store({.sink_tokens = 2});
  store.Append(0, 0, 200);
  ASSERT_TRUE(store->Truncate(0, 100).ok());
  EXPECT_EQ(store->num_rows(0), 100);
  EXPECT_THAT(store.Read(0, 100, 100), Each(0.0f));
  EXPECT_EQ(ReadView(*store.store, 0).size(), 100u);
  store.Append(0, 100, 101, 3);
  EXPECT_EQ(store.Read(0, 100, 1), TestRows({100}, 3));
  EXPECT_EQ(store.ReadValue(0, 99, 0, 0), OnGrid(TestValue(99, 0, 0)));
  EXPECT_EQ(store->num_rows(0), 101);
  store.Append(0, 101, 128, 3);
  EXPECT_EQ(ExactRows(*store.store, 0), (std::vector<int64_t>{0, 1}));

  ASSERT_TRUE(store->Truncate(0, 1).ok());  // inside the sinks
  EXPECT_EQ(store.Read(0, 0, 1), TestRows({0}));
  ASSERT_TRUE(store->Truncate(0, 500).ok());
  EXPECT_EQ(store->num_rows(0), 1);
  ASSERT_TRUE(store->Truncate(0, 0).ok());
  EXPECT_EQ(store.pool.used_bytes(), 0u);
}

// ---- errors

TEST(KvStore, RefusesValuesThatFp16CannotHold) {
  const struct {
    float value;
    const char* message;
  } kCases[] = {{NAN, "is not finite"},
                {INFINITY, "value inf in channel 5 is not finite"},
                {65520.0f, "value 65520 in channel 5 does not fit fp16"},
                {-1e9f, "value -1e+09 in channel 5 does not fit fp16"}};
  TestStore store({.side = Side::kValue});
  ASSERT_TRUE(store.Write(0, {40}).ok());
  for (const auto& c : kCases) {
    std::vector<float> values = TestRows({40, 41, 42}, 1);
    values[kRowValues + kDim + 5] = c.value;
    const Status status = store.WriteValues(0, {40, 41, 42}, values);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), AllOf(HasSubstr("layer 3 V, head 1, row 41: "), HasSubstr(c.message)));
    EXPECT_EQ(store.Read(0, 40, 1), TestRows({40}));  // nothing of the batch is visible
    EXPECT_EQ(store->num_rows(0), 41);
  }
  std::vector<float> largest(kRowValues, 65519.0f);
  EXPECT_TRUE(store.WriteValues(0, {1}, largest).ok());
  EXPECT_EQ(store.ReadValue(0, 1, 0, 0), 65504.0f);
}

TEST(KvStore, RefusesF16ThatIsNotFinite) {
  TestStore store;
  std::vector<F16> row(kRowValues);
  row[3] = F16{0xFC00};
  const Status status = store->Write(Team(), 0, std::vector<int64_t>{9}, {.data = row.data(), .is_f16 = true});
  EXPECT_THAT(status.message(), HasSubstr("layer 3 K, head 0, row 9: value -inf in channel 3 is not finite"));
}

TEST(KvStore, RefusesRowsAndSequencesThatDoNotExist) {
  TestStore store;
  EXPECT_THAT(store.Write(0, {-1}).message(), HasSubstr("row -1"));
  EXPECT_THAT(store.Write(0, {int64_t{1} << 40}).message(), HasSubstr("accepted: 0..268435455"));
  EXPECT_THAT(store.Write(3, {0}).message(), HasSubstr("sequence 3 does not exist; accepted: 0..2"));
  EXPECT_EQ(store->Seal(Team(), -1).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store->Fork(0, 9).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store->Truncate(0, -1).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store->Read(Team(), 0, -1, 1, {}).code(), StatusCode::kInvalidArgument);
}

TEST(KvStore, RefusesAConfigOutOfRange) {
  PagePool pool;
  const auto refusal = [&](auto change) {
    KvStoreConfig config = {.kv_heads = 1, .codec = GridCodec(Side::kKey, kDim)};
    change(config);
    return KvStore::Create(config, &pool).status().message();
  };
  EXPECT_THAT(refusal([](auto& c) { c.kv_heads = 0; }), HasSubstr("KV heads is 0"));
  EXPECT_THAT(refusal([](auto& c) { c.num_sequences = 0; }), HasSubstr("sequences is 0"));
  EXPECT_THAT(refusal([](auto& c) { c.sink_tokens = 65; }), HasSubstr("sink is 65; accepted: 0..64"));
  EXPECT_THAT(refusal([](auto& c) { c.recent_tokens = -1; }), HasSubstr("recent is -1"));
}

TEST(KvStore, ARefusedPageStaysOpenAndTheOthersAreSealed) {
  TestStore store;
  std::vector<float> values = TestRows(Range(0, 192));
  values[70 * kRowValues + kDim] = 2 * kGridMax;
  ASSERT_TRUE(store.WriteValues(0, Range(0, 192), values).ok());
  const Status status = store->Seal(Team(), 0);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "layer 3 K, head 1, rows 64..127: grid: value too large");
  EXPECT_EQ(ExactRows(*store.store, 0), Range(64, 128));
  EXPECT_EQ(store->footprint().total(), store.pool.used_bytes());
}

// ---- token classes

/// Salient tokens as the codec saw them, bit t for token t, of the sealed pages; all heads alike.
std::vector<uint64_t> SalientTokens(const KvStore& store, int sequence) {
  std::vector<uint64_t> salient;
  for (const PageRun& run : store.View(sequence)) {
    if (run.codec->info != &kGridInfo) continue;
    for (const PageView& page : run.pages) {
      std::byte* blocks = const_cast<std::byte*>(page.blocks);
      salient.push_back(GridSalient(*run.codec->state, blocks));
      EXPECT_EQ(GridSalient(*run.codec->state, blocks + run.codec->block_bytes()), salient.back());
    }
  }
  return salient;
}

Status WriteSalient(TestStore& store, int sequence, const std::vector<int64_t>& rows,
                    const std::vector<int64_t>& salient) {
  const std::vector<float> values = TestRows(rows);
  std::vector<TokenClass> classes;
  for (const int64_t row : rows) {
    classes.push_back(std::ranges::count(salient, row) != 0 ? TokenClass::kSalient : TokenClass::kOrdinary);
  }
  return store->Write(
      Team(), sequence, rows,
      {.data = values.data(), .row_stride_bytes = kRowValues * sizeof(float), .maybe_classes = classes.data()});
}

TEST(KvStore, TokenClassesReachTheCodec) {
  TestStore store({.sink_tokens = 2});
  ASSERT_TRUE(WriteSalient(store, 0, {70, 3, 1, 71, 0}, {70, 3, 1}).ok());  // 1 is a sink
  ASSERT_TRUE(store.Write(0, Range(72, 192)).ok());
  ASSERT_TRUE(WriteSalient(store, 0, {2, 5}, {5}).ok());
  ASSERT_TRUE(store->Fork(0, 1).ok());
  ASSERT_TRUE(store.Write(0, {3}).ok());  // ordinary now
  for (int sequence : {0, 1}) {
    ASSERT_TRUE(store.Write(sequence, {4}).ok());
    ASSERT_TRUE(store.Write(sequence, Range(6, 70)).ok());
    ASSERT_TRUE(store->Seal(Team(), sequence).ok());
  }
  constexpr uint64_t kBit = 1;
  EXPECT_EQ(SalientTokens(*store.store, 0), (std::vector<uint64_t>{kBit << 5, kBit << 6, 0}));
  EXPECT_EQ(SalientTokens(*store.store, 1), (std::vector<uint64_t>{kBit << 5 | kBit << 3, kBit << 6, 0}));
}

TEST(KvStore, ForgottenRowsTakeTheirClassesAlong) {
  TestStore store;
  ASSERT_TRUE(WriteSalient(store, 0, Range(0, 60), {10, 50}).ok());
  ASSERT_TRUE(store->Truncate(0, 20).ok());
  ASSERT_TRUE(store.Write(0, Range(20, 64)).ok());
  ASSERT_TRUE(store->Seal(Team(), 0).ok());
  EXPECT_EQ(SalientTokens(*store.store, 0), (std::vector<uint64_t>{uint64_t{1} << 10}));
}

// ---- memory

TEST(KvStore, AtTheLimitNothingIsLost) {
  TestStore store({.limit_bytes = 3 * kOpenPageBytes});
  ASSERT_TRUE(store.Write(0, Range(0, 100)).ok());
  const Status status = store.Write(0, Range(90, 250), 4);  // needs three more pages
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("layer 3 K"), HasSubstr("memory limit of 12288")));
  EXPECT_EQ(store.Read(0, 0, 100), TestRows(Range(0, 100)));
  EXPECT_EQ(store.pool.used_bytes(), 2 * kOpenPageBytes);
  EXPECT_EQ(store->Fork(0, 1).code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(store->num_rows(1), 0);
  EXPECT_EQ(store.pool.used_bytes(), 2 * kOpenPageBytes);

  EXPECT_EQ(store->Seal(Team(), 0).code(), StatusCode::kOutOfMemory);  // a page of the grid codec is larger
  EXPECT_EQ(store.Read(0, 0, 100), TestRows(Range(0, 100)));
  store->Clear(0);
  EXPECT_TRUE(store.Write(0, Range(0, 192)).ok());
}

TEST(KvStore, FootprintIsWhatThePoolHandedOut) {
  TestStore store({.sink_tokens = 4, .codec = {.basis_min_tokens = 64}});
  store.Append(0, 0, 150);
  const Footprint footprint = store->footprint();
  EXPECT_EQ(footprint.total(), store.pool.used_bytes());
  const size_t page_codes = kHeads * 64 * kDim * sizeof(float);
  EXPECT_EQ(footprint.by_kind[static_cast<int>(StreamKind::kCodes)], 2 * page_codes);
  EXPECT_EQ(footprint.by_kind[static_cast<int>(StreamKind::kScales)],
            2u * kHeads * 64);  // 16 bytes and padding
  EXPECT_EQ(footprint.by_kind[static_cast<int>(StreamKind::kBases)], kHeads * 64u);
  EXPECT_EQ(footprint.by_kind[static_cast<int>(StreamKind::kExact)], kOpenPageBytes + kHeads * 16 * kDim * 2u);
  EXPECT_EQ(footprint.rows, 150u);
  EXPECT_EQ(footprint.values, 150 * kRowValues);
  EXPECT_DOUBLE_EQ(footprint.bits_per_value(), 8.0 * static_cast<double>(footprint.total()) / (150.0 * kRowValues));
}

// ---- positions

constexpr GridOptions kBeforeRope = {.keys_before_rope = true};

TEST(KvStorePositions, AreNeededAndChecked) {
  PagePool pool;
  const auto store = KvStore::Create({.kv_heads = 1, .codec = GridCodec(Side::kKey, kDim, kBeforeRope)}, &pool);
  EXPECT_THAT(store.status().message(), HasSubstr("codec grid keeps keys as they were before RoPE"));
  TestStore positioned({.codec = kBeforeRope});
  const int32_t positions[] = {3, -1};
  EXPECT_THAT(positioned.WriteValues(0, {0, 1}, TestRows({0, 1}), Team(), positions).message(),
              HasSubstr("layer 3 K, row 1: position -1; accepted: 0..16777215"));
  EXPECT_EQ(positioned->num_rows(0), 0);
}

TEST(KvStorePositions, AreCountedAndGivenBack) {
  TestStore store({.codec = kBeforeRope});
  store.Append(0, 0, 100);
  EXPECT_EQ(store->footprint().by_kind[static_cast<int>(StreamKind::kPositions)], 2u * 64 * 4);
  EXPECT_EQ(store->footprint().total(), store.pool.used_bytes());
  EXPECT_EQ(store->Position(0, 99), 99);  // none given: the row numbers
  ASSERT_TRUE(store->Truncate(0, 64).ok());
  EXPECT_EQ(store->footprint().by_kind[static_cast<int>(StreamKind::kPositions)], 64u * 4);
}

TEST(KvStorePositions, ShiftLeavesSealedPagesAlone) {
  TestStore store({.sink_tokens = 4, .codec = kBeforeRope});
  store.Append(0, 0, 130);
  ASSERT_TRUE(store->Fork(0, 1).ok());
  const std::byte* blocks = store->View(0)[1].pages[0].blocks;
  const std::vector<float> before = store.Read(1, 0, 130);
  ASSERT_TRUE(store->MovePositions(Team(), 0, std::vector<int32_t>(130, 7)).ok());
  EXPECT_EQ(store->View(0)[1].pages[0].blocks, blocks);
  EXPECT_EQ(store->Position(0, 70), 77);
  EXPECT_EQ(store.Read(1, 0, 130), before);  // sinks and positions of the fork are its own
  EXPECT_NE(store.Read(0, 0, 1), store.Read(1, 0, 1));
  const Status status = store->MovePositions(Team(), 0, std::vector<int32_t>(130, -8));
  EXPECT_THAT(status.message(), HasSubstr("layer 3 K, row 0: position -1"));
  EXPECT_EQ(store->Position(0, 129), 136);
}

TEST(KvStorePositions, BasisIsFittedBeforeRope) {
  TestStore store({.codec = {.basis_min_tokens = 64, .keys_before_rope = true}});
  std::vector<float> rows(64 * kRowValues, 2.0f);  // the same key at all positions, turned
  std::vector<int32_t> positions(64 * kHeads);
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(100 + i / kHeads);
  TurnRows(*TestRope(), positions.data(), 64 * kHeads, rows.data());
  std::vector<int32_t> row_positions(64);
  std::iota(row_positions.begin(), row_positions.end(), 100);
  ASSERT_TRUE(store.WriteValues(0, Range(0, 64), rows, Team(), row_positions).ok());
  ASSERT_TRUE(store->Seal(Team(), 0).ok());
  EXPECT_NEAR(Origin(store->View(0)[0].bases[0]), 2.0f, 1e-3f);
}

TEST(KvStore, PagesWaitForABasisThatIsNeeded) {
  TestStore store({.codec = {.basis_min_tokens = 150, .needs_basis = true}});
  store.Append(0, 0, 149);
  EXPECT_EQ(store->footprint().by_kind[static_cast<int>(StreamKind::kCodes)], 0u);
  store.Append(0, 149, 150);
  for (const PageRun& run : store->View(0).first(1)) EXPECT_FALSE(run.bases.empty());
  EXPECT_EQ(store->View(0)[0].pages.size(), 2u);
}

}  // namespace
}  // namespace kvant::test
