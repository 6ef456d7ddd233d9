#include "llama/proxy_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "llama/test_graph.h"

namespace kvant {
namespace {

using testing::HasSubstr;

ggml_backend_dev_t Cpu() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

std::unique_ptr<ProxyDevice> Proxy(const char* scheme = "k=raw v=raw") {
  return std::move(ProxyDevice::Create(Cpu(), {.scheme = *Scheme::Parse(scheme)})).value();
}

TEST(ProxyDevice, LooksLikeAGpuAndForwardsTheRest) {
  const auto proxy = Proxy();
  ggml_backend_dev_t device = proxy->device();
  ggml_backend_dev_props props;
  ggml_backend_dev_get_props(device, &props);
  EXPECT_STREQ(props.name, "KVANT0");
  EXPECT_EQ(props.type, GGML_BACKEND_DEVICE_TYPE_GPU);
  EXPECT_TRUE(props.caps.buffer_from_host_ptr);
  EXPECT_TRUE(ggml_backend_buft_is_host(ggml_backend_dev_buffer_type(device)));
  EXPECT_TRUE(ggml_backend_dev_supports_buft(device, ggml_backend_dev_buffer_type(Cpu())));
  EXPECT_EQ(ggml_backend_reg_dev_get(proxy->reg(), 0), device);
  EXPECT_NE(ggml_backend_reg_get_proc_address(proxy->reg(), "ggml_backend_set_n_threads"), nullptr);
  EXPECT_EQ(ggml_backend_reg_get_proc_address(proxy->reg(), "ggml_threadpool_new"), nullptr);
}

TEST(ProxyDevice, BuffersThatAreNoCacheAreTheInnerDevices) {
  const auto proxy = Proxy();
  GgmlPtr<ggml_backend_buffer> buffer(
      ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(proxy->device()), 4096));
  EXPECT_EQ(ggml_backend_buffer_get_type(buffer.get()), ggml_backend_dev_buffer_type(Cpu()));
}

TEST(ProxyDevice, ACacheTakesAddressesOnly) {
  const auto proxy = Proxy();
  TestLayer layer(proxy->device(), {.kv_heads = 8, .k_dim = 128, .cells = 1 << 26});  // 256 GB
  ASSERT_TRUE(layer.has_cache());
  EXPECT_EQ(ggml_backend_buffer_get_type(layer.key()->buffer), proxy->buffer_types().cache());
  EXPECT_FALSE(ggml_backend_buffer_is_host(layer.key()->buffer));
  EXPECT_EQ(proxy->memory_bytes(), 0u);
  EXPECT_EQ(ggml_backend_buffer_get_size(layer.key()->buffer), 1u) << "what libllama says of memory";
  ASSERT_EQ(layer.Write({0}, 1), GGML_STATUS_SUCCESS);
  EXPECT_EQ(ggml_backend_buffer_get_size(layer.key()->buffer), proxy->memory_bytes());
}

TEST(ProxyDevice, KeysBeforeRopeAreRefusedWhereTurnsAreNotKnown) {
  const auto error = [](const TestTurn& turn) {
    const auto proxy = Proxy("k=kvquant:4,fit=256 v=raw");
    TestLayer layer(proxy->device(), {.turn = turn});
    EXPECT_EQ(layer.Write({0}, 1), GGML_STATUS_ALLOC_FAILED);
    return proxy->errors().last().message();
  };
  EXPECT_EQ(error({}),
            "layer 0: codec kvquant keeps keys as they were before RoPE, but the model does not turn them (RoPE) just "
            "before the cache");
  EXPECT_THAT(error({.dims = 64, .mode = GGML_ROPE_TYPE_VISION}),
              HasSubstr("a kind of RoPE that is not supported (24;"));
}

TEST(ProxyDevice, SizesAskedWithoutAnAllocationDoNotMakeTheNextBufferACache) {
  const auto proxy = Proxy();
  ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(proxy->device());
  GgmlPtr<ggml_context> c(ggml_init({.mem_size = 1 << 16, .mem_buffer = nullptr, .no_alloc = true}));
  ggml_tensor* cache = ggml_set_name(ggml_new_tensor_2d(c.get(), GGML_TYPE_F16, 64, 64), "cache_k_l0");
  ggml_backend_buft_get_alloc_size(type, cache);
  ggml_backend_buft_get_alloc_size(type, ggml_new_tensor_1d(c.get(), GGML_TYPE_F32, 8));
  GgmlPtr<ggml_backend_buffer> buffer(ggml_backend_buft_alloc_buffer(type, ggml_nbytes(cache)));
  EXPECT_TRUE(ggml_backend_buffer_is_host(buffer.get()));
}

TEST(ProxyDevice, AWeightThatIsBetterRepackedIsRefusedInPlainMemory) {
  const auto proxy = Proxy();
  const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
      ggml_backend_reg_get_proc_address(proxy->reg(), "ggml_backend_dev_get_extra_bufts"));
  ASSERT_NE(extra, nullptr);
  GgmlPtr<ggml_context> c(ggml_init({.mem_size = 1 << 16, .mem_buffer = nullptr, .no_alloc = true}));
  ggml_tensor* weight = ggml_new_tensor_2d(c.get(), GGML_TYPE_Q4_0, 512, 512);
  ggml_tensor* product = ggml_mul_mat(c.get(), weight, ggml_new_tensor_2d(c.get(), GGML_TYPE_F32, 512, 16));
  const auto supported_in = [&](ggml_backend_buffer_type_t type) {
    GgmlPtr<ggml_backend_buffer> empty(ggml_backend_buft_alloc_buffer(type, 0));
    weight->buffer = empty.get();
    const bool supported = ggml_backend_dev_supports_op(proxy->device(), product);
    weight->buffer = nullptr;
    return supported;
  };
  bool repacked = false;
  for (ggml_backend_buffer_type_t* type = extra(proxy->device()); *type; ++type) repacked |= supported_in(*type);
  EXPECT_EQ(supported_in(ggml_backend_dev_buffer_type(proxy->device())), !repacked);
}

// ---- what is refused while a context is made

class ProxyRefusal : public testing::Test {
 protected:
  std::string Message() const { return proxy_->errors().last().message(); }
  std::unique_ptr<ProxyDevice> proxy_ = Proxy();
};

TEST_F(ProxyRefusal, QuantisedCacheTypes) {
  TestLayer layer(proxy_->device(), {}, GGML_TYPE_Q8_0);
  EXPECT_FALSE(layer.has_cache());
  EXPECT_THAT(Message(), HasSubstr("q8_0 cache ('cache_k_l0'); leave the K and V cache types at f16"));
}

TEST_F(ProxyRefusal, AttentionWithoutFlashAttention) {
  TestLayer layer(proxy_->device(), {});
  ggml_context* c = layer.NewGraph();
  std::vector<float> q(128);
  layer.Add(
      ggml_mul_mat(c, ggml_view_2d(c, layer.key(), 128, 256, 256, 0), layer.Input(GGML_TYPE_F32, {128, 1}, q.data())));
  EXPECT_FALSE(layer.Plan());
  EXPECT_THAT(Message(), HasSubstr("MUL_MAT on the KV cache"));
}

TEST_F(ProxyRefusal, TooManyQueryHeads) {
  TestLayer layer(proxy_->device(), {.q_heads = 17, .kv_heads = 1});
  layer.NewGraph();
  layer.AddAttention({}, 1);
  EXPECT_FALSE(layer.Plan());
  EXPECT_THAT(Message(), HasSubstr("layer 0: more than 16 query heads share a KV head"));
}

TEST_F(ProxyRefusal, HeadSizesThatTheCodecCannotEncode) {
  TestLayer layer(proxy_->device(), {.k_dim = 72});
  layer.NewGraph();
  layer.AddAttention({}, 1);
  EXPECT_FALSE(layer.Plan());
  EXPECT_THAT(Message(), HasSubstr("72"));
}

TEST_F(ProxyRefusal, ACacheOnAnotherDevice) {
  TestLayer cpu(Cpu(), {});
  cpu.NewGraph();
  ggml_tensor* attention = nullptr;
  cpu.AddAttention({}, 1, &attention);
  ggml_backend_dev_supports_op(proxy_->device(), attention);
  TestLayer layer(proxy_->device(), {});
  EXPECT_FALSE(layer.has_cache());
  EXPECT_THAT(Message(), HasSubstr("cache_k_l0 lies outside KVANT0"));
}

class ProxyRefusalByName : public ProxyRefusal,
                           public testing::WithParamInterface<std::pair<const char*, const char*>> {};

TEST_P(ProxyRefusalByName, MemoryThatIsNoPlainCache) {
  const auto [name, message] = GetParam();
  GgmlPtr<ggml_context> c(ggml_init({.mem_size = 1 << 16, .mem_buffer = nullptr, .no_alloc = true}));
  ggml_set_name(ggml_new_tensor_3d(c.get(), GGML_TYPE_F16, 64, 64, 1), name);
  GgmlPtr<ggml_backend_buffer> buffer(
      ggml_backend_alloc_ctx_tensors_from_buft(c.get(), ggml_backend_dev_buffer_type(proxy_->device())));
  EXPECT_EQ(buffer, nullptr);
  EXPECT_THAT(Message(), HasSubstr(message));
}

INSTANTIATE_TEST_SUITE_P(Names, ProxyRefusalByName,
                         testing::Values(std::pair{"cache_k_l3", "(MLA)"},
                                         std::pair{"cache_r_l0", "'cache_r_l0', a recurrent"},
                                         std::pair{"cache_s_l0", "a recurrent or indexer state"}));

}  // namespace
}  // namespace kvant
