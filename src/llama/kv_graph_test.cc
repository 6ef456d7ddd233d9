#include "llama/kv_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "ggml-cpu.h"
#include "llama/proxy_device.h"
#include "llama/test_graph.h"

namespace kvant {
namespace {

ggml_backend_dev_t Cpu() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

std::unique_ptr<ProxyDevice> Proxy(const char* scheme = "k=raw v=raw") {
  return std::move(ProxyDevice::Create(Cpu(), {.scheme = *Scheme::Parse(scheme)})).value();
}

std::vector<int64_t> Cells(int64_t first, int64_t count) {
  std::vector<int64_t> cells(static_cast<size_t>(count));
  std::iota(cells.begin(), cells.end(), first);
  return cells;
}

double RelativeError(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return INFINITY;
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += a[i] * a[i];
  }
  return std::sqrt(difference / norm);
}

// ggml's CPU attention sums values in fp16.
constexpr double kTolerance = 6e-3;

// ---- attention, against ggml's own on the same rows

struct AttentionCase {
  const char* name;
  TestShape shape;
  TestAttention attention;
};

class KvGraphAttention : public testing::TestWithParam<AttentionCase> {};

TEST_P(KvGraphAttention, MatchesGgml) {
  const auto& [name, shape, attention] = GetParam();
  const auto proxy = Proxy();
  TestLayer ours(proxy->device(), shape);
  TestLayer ggml(Cpu(), shape);
  for (int stream = 0; stream < shape.streams; ++stream) {
    const auto cells = Cells(stream * shape.cells, attention.visible * 3 / 4 + 8 + 10 * stream);
    ASSERT_EQ(ours.Write(cells, 5 + static_cast<unsigned>(stream)), GGML_STATUS_SUCCESS);
    ASSERT_EQ(ggml.Write(cells, 5 + static_cast<unsigned>(stream)), GGML_STATUS_SUCCESS);
  }
  const std::vector<float> expected = ggml.Attend(attention, 3);
  const std::vector<float> actual = ours.Attend(attention, 3);
  if (attention.queries > kMaxFusedQueries) {
    EXPECT_EQ(actual, expected);  // the same rows through the same attention
  } else {
    EXPECT_LT(RelativeError(expected, actual), kTolerance);
    EXPECT_GT(RelativeError(expected, actual), 0) << "ggml's attention ran, not ours";
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, KvGraphAttention,
                         testing::Values(AttentionCase{"token", {}, {}}, AttentionCase{"rows", {}, {.queries = 8}},
                                         AttentionCase{"prefill", {}, {.queries = 9}},
                                         AttentionCase{"prefill_tiled", {}, {.queries = 80}},
                                         AttentionCase{"all_cells", {}, {.queries = 2, .visible = 512}},
                                         AttentionCase{"one_head", {.q_heads = 1, .kv_heads = 1}, {}},
                                         AttentionCase{"shared_by_16", {.q_heads = 16, .kv_heads = 1}, {}},
                                         AttentionCase{"wide", {.k_dim = 256, .v_dim = 64}, {.queries = 3}},
                                         AttentionCase{"streams", {.streams = 3}, {.queries = 2}},
                                         AttentionCase{"streams_prefill", {.streams = 3}, {.queries = 20}},
                                         AttentionCase{"softcap", {}, {.softcap = 3}},
                                         AttentionCase{"softcap_prefill", {}, {.queries = 20, .softcap = 3}},
                                         AttentionCase{"alibi", {.q_heads = 6}, {.queries = 2, .max_bias = 8}},
                                         AttentionCase{"alibi_prefill", {.q_heads = 6}, {.queries = 20, .max_bias = 8}},
                                         AttentionCase{"sinks", {}, {.queries = 2, .sinks = true}},
                                         AttentionCase{"sinks_prefill", {}, {.queries = 20, .sinks = true}}),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- writes

TEST(KvGraph, CellsAreRewrittenInAnyOrder) {
  const auto proxy = Proxy();
  TestLayer ours(proxy->device(), {});
  TestLayer ggml(Cpu(), {});
  for (TestLayer* layer : {&ours, &ggml}) {
    ASSERT_EQ(layer->Write(Cells(0, 192), 1), GGML_STATUS_SUCCESS);
    ASSERT_EQ(layer->Write({70, 3, 150, 2}, 2), GGML_STATUS_SUCCESS);  // in pages that are sealed
    ASSERT_EQ(layer->Write(Cells(0, 64), 3), GGML_STATUS_SUCCESS);
  }
  EXPECT_LT(RelativeError(ggml.Attend({}, 1), ours.Attend({}, 1)), kTolerance);
}

TEST(KvGraph, AWrongValueFailsTheGraphAndIsNamed) {
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), {});
  std::vector<float> rows = RandomFloats(128, 1);
  std::vector<int64_t> cell = {7};
  rows[65] = INFINITY;
  ASSERT_EQ(layer.Write(Cells(0, 4), 1), GGML_STATUS_SUCCESS);
  ggml_context* c = layer.NewGraph();
  ggml_tensor* index = layer.Input(GGML_TYPE_I64, {1}, cell.data());
  layer.Add(ggml_set_rows(c, layer.key(), layer.Input(GGML_TYPE_F32, {128, 1}, rows.data()), index));
  ASSERT_TRUE(layer.Plan());
  EXPECT_EQ(layer.Compute(), GGML_STATUS_FAILED);
  EXPECT_THAT(proxy->errors().last().message(), testing::HasSubstr("row 7"));
}

TEST(KvGraph, RemovedCellsGiveTheirMemoryBack) {
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), {});
  ASSERT_EQ(layer.Write(Cells(0, 512), 1), GGML_STATUS_SUCCESS);
  const size_t all = proxy->footprint().total();
  ASSERT_FALSE(layer.Attend({.visible = 256}, 1).empty());  // libllama's view has shrunk
  EXPECT_EQ(proxy->footprint().rows, 2u * 256);
  EXPECT_NEAR(static_cast<double>(proxy->footprint().total()), static_cast<double>(all) / 2, 8192);
}

// ---- context shift

TEST(KvGraph, ShiftTurnsKeysInPlace) {
  const TestShape shape = {.streams = 2};
  const auto proxy = Proxy();
  TestLayer ours(proxy->device(), shape);
  TestLayer ggml(Cpu(), shape);
  std::vector<int32_t> shift(1024, 0);
  for (size_t i = 40; i < 200; ++i) shift[i] = -17;
  for (size_t i = 512; i < 600; ++i) shift[i] = 5;
  std::vector<ggml_fp16_t> keys[2];
  for (TestLayer* layer : {&ours, &ggml}) {
    ASSERT_EQ(layer->Write(Cells(0, 200), 1), GGML_STATUS_SUCCESS);
    ASSERT_EQ(layer->Write(Cells(512, 100), 2), GGML_STATUS_SUCCESS);
    ggml_context* c = layer->NewGraph();
    ggml_tensor* view = ggml_view_3d(c, layer->key(), 32, 2, 1024, 64 * 2, 128 * 2, 0);
    layer->Add(ggml_rope_ext_inplace(c, view, layer->Input(GGML_TYPE_I32, {1024}, shift.data()), nullptr, 32, 0, 0,
                                     1e4f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f));
    ASSERT_TRUE(layer->Plan());
    ASSERT_EQ(layer->Compute(), GGML_STATUS_SUCCESS);
    std::vector<ggml_fp16_t>& out = keys[layer == &ggml];
    out.resize(128 * 1024);
    ggml_backend_tensor_get(layer->key(), out.data(), 0, out.size() * 2);
  }
  EXPECT_EQ(keys[0], keys[1]);
}

// ---- bytes

TEST(KvGraph, BytesComeBackAsWritten) {
  const TestShape shape = {.cells = 768, .streams = 2};
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), shape);
  ASSERT_EQ(layer.Write(Cells(0, 4), 1), GGML_STATUS_SUCCESS);
  std::vector<ggml_fp16_t> rows(128 * 700);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = ggml_fp32_to_fp16(static_cast<float>(i % 1000) / 100);
  const size_t row_bytes = 128 * 2;
  ggml_backend_tensor_set(layer.key(), rows.data(), 500 * row_bytes, rows.size() * 2);  // across the streams' border
  std::vector<ggml_fp16_t> back(rows.size());
  ggml_backend_tensor_get(layer.key(), back.data(), 500 * row_bytes, back.size() * 2);
  EXPECT_EQ(rows, back);
  std::vector<ggml_fp16_t> part(300);  // from inside a row
  ggml_backend_tensor_get(layer.key(), part.data(), 501 * row_bytes + 10, 600);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), rows.begin() + 128 + 5));

  ggml_backend_tensor_memset(layer.key(), 0, 502 * row_bytes, 2 * row_bytes);
  ggml_backend_tensor_get(layer.key(), back.data(), 501 * row_bytes, 4 * row_bytes);
  EXPECT_EQ(back[0], rows[128]);
  EXPECT_EQ(back[128], 0);
  EXPECT_EQ(back[128 * 3], rows[128 * 4]);
  EXPECT_TRUE(proxy->errors().last().ok());
}

TEST(KvGraph, LostRowsFailTheNextGraphUntilCleared) {
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), {});
  ASSERT_EQ(layer.Write(Cells(0, 4), 1), GGML_STATUS_SUCCESS);
  const std::vector<ggml_fp16_t> bad(128, ggml_fp32_to_fp16(INFINITY));
  ggml_backend_tensor_set(layer.key(), bad.data(), 0, 256);
  EXPECT_EQ(layer.Write({5}, 2), GGML_STATUS_FAILED);
  ggml_backend_buffer_clear(layer.key()->buffer, 0);
  EXPECT_EQ(layer.Write({5}, 2), GGML_STATUS_SUCCESS);
}

TEST(KvGraph, AStreamIsCopiedWithoutMemoryForSealedPages) {
  const TestShape shape = {.streams = 2};
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), shape);
  ASSERT_EQ(layer.Write(Cells(0, 512), 1), GGML_STATUS_SUCCESS);
  const size_t before = proxy->memory_bytes();
  GgmlPtr<ggml_context> c(ggml_init({.mem_size = 1 << 16, .mem_buffer = nullptr, .no_alloc = true}));
  for (ggml_tensor* cache : {layer.key(), layer.value()}) {
    ggml_tensor* from = ggml_view_2d(c.get(), cache, cache->ne[0], 512, cache->nb[1], 0);
    ggml_tensor* to = ggml_view_2d(c.get(), cache, cache->ne[0], 512, cache->nb[1], cache->nb[2]);
    ASSERT_EQ(ggml_backend_view_init(from), GGML_STATUS_SUCCESS);
    ASSERT_EQ(ggml_backend_view_init(to), GGML_STATUS_SUCCESS);
    ggml_backend_tensor_copy(from, to);
  }
  EXPECT_LT(proxy->memory_bytes(), before * 5 / 4);
  const std::vector<float> out = layer.Attend({}, 1);
  ASSERT_EQ(out.size(), 2u * 8 * 128);
  EXPECT_EQ(proxy->footprint().rows, 2u * 2 * 256);
}

// ---- keys before RoPE

// A codec that keeps them so, close enough that a wrong angle shows.
constexpr const char* kBeforeRope = "k=kvquant:4,fit=256 v=raw sink=0";

std::vector<float> KeysOf(TestLayer& layer, size_t rows) {
  std::vector<ggml_fp16_t> words(128 * rows);
  ggml_backend_tensor_get(layer.key(), words.data(), 0, words.size() * sizeof(ggml_fp16_t));
  std::vector<float> values;
  for (const ggml_fp16_t word : words) values.push_back(ggml_fp16_to_fp32(word));
  return values;
}

struct TurnCase {
  const char* name;
  TestTurn turn;
};

class KvGraphTurn : public testing::TestWithParam<TurnCase> {};

TEST_P(KvGraphTurn, KeysAndShiftsMatchGgml) {
  const TestShape shape = {.turn = GetParam().turn};
  const auto proxy = Proxy(kBeforeRope);
  TestLayer ours(proxy->device(), shape);
  TestLayer ggml(Cpu(), shape);
  std::vector<int32_t> shift(512, 0);
  for (size_t i = 40; i < 230; ++i) shift[i] = -33;
  std::vector<float> keys[2], shifted[2];
  for (TestLayer* layer : {&ours, &ggml}) {
    ASSERT_EQ(layer->Write(Cells(0, 256), 1), GGML_STATUS_SUCCESS);
    ASSERT_EQ(layer->Write({100}, 3), GGML_STATUS_SUCCESS);  // opens a page, which is sealed again
    ASSERT_EQ(layer->Write({255}, 3), GGML_STATUS_SUCCESS);
    keys[layer == &ggml] = KeysOf(*layer, 256);
    ggml_context* c = layer->NewGraph();
    ggml_tensor* view = ggml_view_3d(c, layer->key(), GetParam().turn.dims, 2, 512, 64 * 2, 128 * 2, 0);
    layer->Add(layer->Turn(view, layer->Input(GGML_TYPE_I32, {512}, shift.data()), true));
    ASSERT_TRUE(layer->Plan());
    ASSERT_EQ(layer->Compute(), GGML_STATUS_SUCCESS);
    shifted[layer == &ggml] = KeysOf(*layer, 256);
  }
  EXPECT_GT(proxy->footprint().by_kind[static_cast<int>(StreamKind::kCodes)], 0u) << "nothing was sealed";
  EXPECT_LT(RelativeError(keys[1], keys[0]), 0.12);
  EXPECT_LT(RelativeError(shifted[1], shifted[0]), 0.12);
  EXPECT_GT(RelativeError(keys[1], shifted[1]), 0.3) << "the shift did nothing";
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, KvGraphTurn,
    testing::Values(TurnCase{"split", {.dims = 64}},
                    TurnCase{"interleaved", {.dims = 64, .mode = GGML_ROPE_TYPE_NORMAL}},
                    TurnCase{"partial", {.dims = 32}}, TurnCase{"scaled", {.dims = 64, .scale = 0.25f}},
                    TurnCase{"factors", {.dims = 64, .factors = true}},
                    TurnCase{"partial_interleaved", {.dims = 48, .mode = GGML_ROPE_TYPE_NORMAL, .base = 5e5f}}),
    [](const auto& info) { return std::string(info.param.name); });

// YaRN scales keys by more than 1, and ggml's shift does it again; so only what is written is compared.
TEST(KvGraph, KeysTurnedByYarn) {
  const TestShape shape = {.turn = {.dims = 64, .scale = 0.25f, .ext_factor = 1.0f, .factors = true}};
  const auto proxy = Proxy(kBeforeRope);
  TestLayer ours(proxy->device(), shape);
  TestLayer ggml(Cpu(), shape);
  for (TestLayer* layer : {&ours, &ggml}) {
    ASSERT_EQ(layer->Write(Cells(0, 256), 1), GGML_STATUS_SUCCESS);
  }
  EXPECT_LT(RelativeError(KeysOf(ggml, 256), KeysOf(ours, 256)), 0.12);
}

TEST(KvGraph, FewQueriesReadKeysBeforeRope) {
  const TestShape shape = {.turn = {.dims = 64}};
  const auto proxy = Proxy(kBeforeRope);
  TestLayer ours(proxy->device(), shape);
  ASSERT_EQ(ours.Write(Cells(0, 256), 1), GGML_STATUS_SUCCESS);
  const std::vector<float> fused = ours.Attend({.queries = kMaxFusedQueries}, 1);
  // The same rows in a raw cache, as they are decoded.
  const auto raw = Proxy();
  TestLayer decoded(raw->device(), {});
  ASSERT_EQ(decoded.Write(Cells(0, 256), 1), GGML_STATUS_SUCCESS);
  std::vector<ggml_fp16_t> keys(128 * 256);
  ggml_backend_tensor_get(ours.key(), keys.data(), 0, keys.size() * 2);
  ggml_backend_tensor_set(decoded.key(), keys.data(), 0, keys.size() * 2);
  EXPECT_LT(RelativeError(decoded.Attend({.queries = kMaxFusedQueries}, 1), fused), 3e-3);
}

TEST(KvGraph, RowsOfAStateCarryTheirPositions) {
  const TestShape shape = {.turn = {.dims = 64}};
  const auto from = Proxy(kBeforeRope), to = Proxy(kBeforeRope);
  TestLayer saved(from->device(), shape), restored(to->device(), shape);
  ASSERT_EQ(saved.Write(Cells(0, 256), 1), GGML_STATUS_SUCCESS);
  ASSERT_EQ(restored.Write({511}, 9), GGML_STATUS_SUCCESS);  // makes the stores
  std::vector<ggml_fp16_t> rows(128 * 256);
  ggml_backend_tensor_get(saved.key(), rows.data(), 0, rows.size() * 2);
  ggml_backend_tensor_set(restored.key(), rows.data(), 0, rows.size() * 2);
  EXPECT_TRUE(to->errors().last().ok());
  EXPECT_GT(to->footprint().by_kind[static_cast<int>(StreamKind::kCodes)], 0u);
  EXPECT_LT(RelativeError(KeysOf(saved, 256), KeysOf(restored, 256)), 0.1);

  for (ggml_fp16_t& word : rows) word = static_cast<ggml_fp16_t>(word ^ 1);  // as another program would leave them
  ggml_backend_tensor_set(restored.key(), rows.data(), 0, rows.size() * 2);
  EXPECT_THAT(
      to->errors().last().message(),
      testing::HasSubstr("layer 0, cell 0: the restored key does not say its position, which codec kvquant needs"));
  EXPECT_EQ(restored.Write({5}, 2), GGML_STATUS_FAILED);
}

}  // namespace
}  // namespace kvant
