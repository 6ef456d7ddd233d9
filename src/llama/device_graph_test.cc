// Graphs on a CUDA device, against ggml's CPU and against our own cells in host memory. Skipped where there is no device.
#include "llama/device_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "ggml-cpu.h"
#include "llama/inner_device.h"
#include "llama/proxy_device.h"
#include "llama/test_graph.h"

namespace kvant {
namespace {

using testing::HasSubstr;

ggml_backend_dev_t Device(const char* name) {
  static const bool loaded = (ggml_backend_load_all(), true);
  static_cast<void>(loaded);
  const auto found = FindInnerDevice(name, {ggml_backend_dev_count, ggml_backend_dev_get});
  return found.ok() && (HasCudaDevice() || !IsCuda(*found)) ? *found : nullptr;
}

#define KVANT_NEED_CUDA() \
  if (Device("cuda") == nullptr) GTEST_SKIP() << "no CUDA device, or libllama or kvant without CUDA"

std::unique_ptr<ProxyDevice> Proxy(const char* scheme = "k=raw v=raw", const char* device = "cuda", size_t limit = 0) {
  auto made = ProxyDevice::Create(Device(device), {.scheme = *Scheme::Parse(scheme), .memory_limit_bytes = limit});
  EXPECT_TRUE(made.ok()) << made.status().message();
  return std::move(made).value();
}

std::vector<int64_t> Cells(int64_t first, int64_t count) {
  std::vector<int64_t> cells(static_cast<size_t>(count));
  std::iota(cells.begin(), cells.end(), first);
  return cells;
}

double RelativeError(const std::vector<float>& expected, const std::vector<float>& actual) {
  if (expected.size() != actual.size() || expected.empty()) return INFINITY;
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (expected[i] - actual[i]) * (expected[i] - actual[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

// ggml's CPU attention sums values in fp16.
constexpr double kTolerance = 6e-3;
constexpr TestShape kShape = {.k_dim = 128, .v_dim = 128};

struct AttentionCase {
  const char* name;
  TestShape shape;
  TestAttention attention;
};

class DeviceGraphAttention : public testing::TestWithParam<AttentionCase> {};

TEST_P(DeviceGraphAttention, MatchesGgml) {
  KVANT_NEED_CUDA();
  const auto& [name, shape, attention] = GetParam();
  const auto proxy = Proxy();
  TestLayer ours(proxy->device(), shape);
  TestLayer ggml(Device("cpu"), shape);
  for (int stream = 0; stream < shape.streams; ++stream) {
    const auto cells = Cells(stream * shape.cells, attention.visible * 3 / 4 + 8 + 10 * stream);
    ASSERT_EQ(ours.Write(cells, 5 + static_cast<unsigned>(stream)), GGML_STATUS_SUCCESS)
        << proxy->errors().last().message();
    ASSERT_EQ(ggml.Write(cells, 5 + static_cast<unsigned>(stream)), GGML_STATUS_SUCCESS);
  }
  const std::vector<float> expected = ggml.Attend(attention, 3);
  EXPECT_LT(RelativeError(expected, ours.Attend(attention, 3)), kTolerance) << proxy->errors().last().message();
}

INSTANTIATE_TEST_SUITE_P(
    Cases, DeviceGraphAttention,
    testing::Values(AttentionCase{"token", kShape, {}}, AttentionCase{"rows", kShape, {.queries = 8}},
                    AttentionCase{"rows_asked_for", kShape, {.queries = 20}},
                    AttentionCase{"prefill", kShape, {.queries = 80}},
                    AttentionCase{"all_cells", kShape, {.queries = 2, .visible = 512}},
                    AttentionCase{"one_head", {.q_heads = 1, .kv_heads = 1, .k_dim = 128}, {}},
                    AttentionCase{"shared_by_16", {.q_heads = 16, .kv_heads = 1, .k_dim = 128}, {}},
                    AttentionCase{"narrow", {.k_dim = 64, .v_dim = 64}, {.queries = 3}},
                    AttentionCase{"wide", {.k_dim = 256, .v_dim = 256}, {.queries = 3}},
                    AttentionCase{"streams", {.k_dim = 128, .streams = 3}, {.queries = 2}},
                    AttentionCase{"streams_prefill", {.k_dim = 128, .streams = 3}, {.queries = 80}},
                    AttentionCase{"softcap", kShape, {.softcap = 3}},
                    AttentionCase{"softcap_prefill", kShape, {.queries = 80, .softcap = 3}},
                    AttentionCase{"sinks", kShape, {.queries = 2, .sinks = true}},
                    AttentionCase{"sinks_prefill", kShape, {.queries = 80, .sinks = true}}),
    [](const auto& info) { return std::string(info.param.name); });

class DeviceGraphCodec : public testing::TestWithParam<const char*> {};

// Codes may differ by a step where sums round in another order.
TEST_P(DeviceGraphCodec, MatchesCellsInHostMemory) {
  KVANT_NEED_CUDA();
  const auto device = Proxy(GetParam()), host = Proxy(GetParam(), "cpu");
  TestLayer on_device(device->device(), kShape), on_host(host->device(), kShape);
  for (TestLayer* layer : {&on_device, &on_host}) {
    ASSERT_EQ(layer->Write(Cells(0, 400), 1), GGML_STATUS_SUCCESS) << device->errors().last().message();
    ASSERT_EQ(layer->Write(Cells(400, 112), 2), GGML_STATUS_SUCCESS);
  }
  const Footprint ours = device->footprint(), theirs = host->footprint();
  EXPECT_EQ(ours.rows, theirs.rows);
  EXPECT_EQ(ours.total(), theirs.total());
  for (const int queries : {1, 5, 80}) {
    const TestAttention attention = {.queries = queries, .visible = 512};
    EXPECT_LT(RelativeError(on_host.Attend(attention, 3), on_device.Attend(attention, 3)), 2e-2) << queries;
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, DeviceGraphCodec,
                         testing::Values("kv8 sink=0", "kv4 sink=0", "kv3 sink=0", "kv2 sink=0", "kivi:2 sink=0",
                                         "k=int:4 v=int:2 sink=0 recent=100", "turboquant:4 sink=0"),
                         [](const auto& info) { return "scheme_" + std::to_string(info.index); });

TEST(DeviceGraph, CellsAreRewrittenInAnyOrder) {
  KVANT_NEED_CUDA();
  const auto proxy = Proxy();
  TestLayer ours(proxy->device(), kShape), ggml(Device("cpu"), kShape);
  for (TestLayer* layer : {&ours, &ggml}) {
    ASSERT_EQ(layer->Write(Cells(0, 192), 1), GGML_STATUS_SUCCESS);
    ASSERT_EQ(layer->Write({70, 3, 150, 2}, 2), GGML_STATUS_SUCCESS);  // in pages that are sealed
    ASSERT_EQ(layer->Write(Cells(0, 64), 3), GGML_STATUS_SUCCESS);
  }
  EXPECT_LT(RelativeError(ggml.Attend({}, 1), ours.Attend({}, 1)), kTolerance);
}

TEST(DeviceGraph, AWrongValueFailsTheNextGraphUntilCleared) {
  KVANT_NEED_CUDA();
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), kShape);
  ASSERT_EQ(layer.Write(Cells(0, 4), 1), GGML_STATUS_SUCCESS);
  const std::vector<ggml_fp16_t> bad(256, ggml_fp32_to_fp16(INFINITY));
  ggml_backend_tensor_set(layer.key(), bad.data(), 0, 512);
  EXPECT_EQ(layer.Write({5}, 2), GGML_STATUS_FAILED);
  EXPECT_THAT(proxy->errors().last().message(), HasSubstr("not a number that fp16 can hold"));
  EXPECT_EQ(layer.Write({5}, 2), GGML_STATUS_FAILED);
  ggml_backend_buffer_clear(layer.key()->buffer, 0);
  EXPECT_EQ(layer.Write({5}, 2), GGML_STATUS_SUCCESS);
}

TEST(DeviceGraph, RemovedCellsGiveTheirMemoryBack) {
  KVANT_NEED_CUDA();
  const TestShape shape = {.kv_heads = 8, .k_dim = 128, .cells = 1 << 16};
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), shape);
  ASSERT_EQ(layer.Write(Cells(0, 1 << 16), 1), GGML_STATUS_SUCCESS);
  EXPECT_GT(proxy->memory_bytes(), size_t{256} << 20);
  ASSERT_EQ(layer.Write({0}, 1), GGML_STATUS_SUCCESS);  // libllama's view has shrunk
  EXPECT_EQ(proxy->footprint().rows, 2u * 256);
  ASSERT_EQ(layer.Write({1}, 1), GGML_STATUS_SUCCESS);
  EXPECT_LT(proxy->memory_bytes(), size_t{192} << 20);
}

TEST(DeviceGraph, AMemoryLimitFailsAGraphAndLeavesTheRest) {
  KVANT_NEED_CUDA();
  const auto proxy = Proxy("k=raw v=raw", "cuda", 1 << 20);
  TestLayer layer(proxy->device(), {.k_dim = 128, .cells = 2048});  // 1 KiB a row
  ASSERT_EQ(layer.Write(Cells(0, 256), 1), GGML_STATUS_SUCCESS);
  const std::vector<float> before = layer.Attend({}, 1);
  EXPECT_EQ(layer.Write(Cells(256, 1024), 1), GGML_STATUS_ALLOC_FAILED);
  EXPECT_THAT(proxy->errors().last().message(), HasSubstr("1048576"));
  EXPECT_EQ(layer.Attend({}, 1), before);
  EXPECT_EQ(layer.Write(Cells(256, 4), 1), GGML_STATUS_SUCCESS);
}

TEST(DeviceGraph, ShiftTurnsKeysInPlace) {
  KVANT_NEED_CUDA();
  const TestShape shape = {.k_dim = 128, .streams = 2};
  const auto proxy = Proxy();
  TestLayer ours(proxy->device(), shape), ggml(Device("cpu"), shape);
  std::vector<int32_t> shift(1024, 0);
  for (size_t i = 40; i < 200; ++i) shift[i] = -17;
  for (size_t i = 512; i < 600; ++i) shift[i] = 5;
  std::vector<float> keys[2];
  for (TestLayer* layer : {&ours, &ggml}) {
    ASSERT_EQ(layer->Write(Cells(0, 200), 1), GGML_STATUS_SUCCESS);
    ASSERT_EQ(layer->Write(Cells(512, 100), 2), GGML_STATUS_SUCCESS);
    ggml_context* c = layer->NewGraph();
    ggml_tensor* view = ggml_view_3d(c, layer->key(), 32, 2, 1024, 128 * 2, 256 * 2, 0);
    layer->Add(ggml_rope_ext_inplace(c, view, layer->Input(GGML_TYPE_I32, {1024}, shift.data()), nullptr, 32, 0, 0,
                                     1e4f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f));
    ASSERT_TRUE(layer->Plan());
    ASSERT_EQ(layer->Compute(), GGML_STATUS_SUCCESS) << proxy->errors().last().message();
    std::vector<ggml_fp16_t> words(256 * 1024);
    ggml_backend_tensor_get(layer->key(), words.data(), 0, words.size() * 2);
    for (const ggml_fp16_t word : words) keys[layer == &ggml].push_back(ggml_fp16_to_fp32(word));
  }
  EXPECT_LT(RelativeError(keys[1], keys[0]), 1e-3);
}

TEST(DeviceGraph, BytesComeBackAsWritten) {
  KVANT_NEED_CUDA();
  const TestShape shape = {.k_dim = 128, .cells = 768, .streams = 2};
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), shape);
  ASSERT_EQ(layer.Write(Cells(0, 4), 1), GGML_STATUS_SUCCESS);
  std::vector<ggml_fp16_t> rows(256 * 700);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = ggml_fp32_to_fp16(static_cast<float>(i % 1000) / 100);
  const size_t row_bytes = 256 * 2;
  ggml_backend_tensor_set(layer.key(), rows.data(), 500 * row_bytes, rows.size() * 2);  // across the streams' border
  std::vector<ggml_fp16_t> back(rows.size());
  ggml_backend_tensor_get(layer.key(), back.data(), 500 * row_bytes, back.size() * 2);
  EXPECT_EQ(rows, back);
  ggml_backend_tensor_memset(layer.key(), 0, 502 * row_bytes, 2 * row_bytes);
  ggml_backend_tensor_get(layer.key(), back.data(), 501 * row_bytes, 4 * row_bytes);
  EXPECT_EQ(back[0], rows[256]);
  EXPECT_EQ(back[256], 0);
  EXPECT_EQ(back[256 * 3], rows[256 * 4]);
  EXPECT_TRUE(proxy->errors().last().ok());
}

TEST(DeviceGraph, AStreamIsCopiedWithoutMemory) {
  KVANT_NEED_CUDA();
  const TestShape shape = {.k_dim = 128, .streams = 2};
  const auto proxy = Proxy("kv4 sink=0");
  TestLayer layer(proxy->device(), shape);
  ASSERT_EQ(layer.Write(Cells(0, 500), 1), GGML_STATUS_SUCCESS);
  const Footprint before = proxy->footprint();
  GgmlPtr<ggml_context> c(ggml_init({.mem_size = 1 << 16, .mem_buffer = nullptr, .no_alloc = true}));
  for (ggml_tensor* cache : {layer.key(), layer.value()}) {
    ggml_tensor* from = ggml_view_2d(c.get(), cache, cache->ne[0], 512, cache->nb[1], 0);
    ggml_tensor* to = ggml_view_2d(c.get(), cache, cache->ne[0], 512, cache->nb[1], cache->nb[2]);
    ASSERT_EQ(ggml_backend_view_init(from), GGML_STATUS_SUCCESS);
    ASSERT_EQ(ggml_backend_view_init(to), GGML_STATUS_SUCCESS);
    ggml_backend_tensor_copy(from, to);
  }
  EXPECT_EQ(proxy->footprint().total(), before.total());
  EXPECT_EQ(proxy->footprint().rows, 2 * before.rows);
  const auto row = [&](int64_t cell) {
    std::vector<ggml_fp16_t> words(256);
    ggml_backend_tensor_get(layer.key(), words.data(), static_cast<size_t>(cell) * 512, 512);
    return words;
  };
  const std::vector<ggml_fp16_t> old = row(200);
  EXPECT_EQ(row(512 + 200), old);
  ASSERT_EQ(layer.Write({512 + 200}, 9), GGML_STATUS_SUCCESS);
  EXPECT_EQ(row(200), old);
  EXPECT_NE(row(512 + 200), old);
}

TEST(DeviceGraph, WhatTheDeviceCannotDoIsRefused) {
  KVANT_NEED_CUDA();
  const auto error = [](const char* scheme, const TestShape& shape) {
    const auto proxy = Proxy(scheme);
    TestLayer layer(proxy->device(), shape);
    EXPECT_EQ(layer.Write({0}, 1), GGML_STATUS_ALLOC_FAILED);
    return proxy->errors().last().message();
  };
  EXPECT_THAT(error("kv4", {}), HasSubstr("layer 0, on a CUDA device: keys and values have heads of different size"));
  EXPECT_THAT(error("qjl", kShape), HasSubstr("layer 0, on a CUDA device: the device does not decode this codec"));
  EXPECT_THAT(error("k=kvquant:4,fit=256 v=raw", kShape), HasSubstr("layer 0"));
}

}  // namespace
}  // namespace kvant
