#include "kvant/kv_cache.h"

#include <cmath>
#include <cstring>

#include "cache/store_test_util.h"

namespace kvant::test {
namespace {

using ::testing::HasSubstr;

constexpr int kLayers = 2;
constexpr int kValueDim = 32;

CacheConfig SmallConfig(std::string_view scheme = "raw", size_t limit_bytes = 0) {
  return {.scheme = *Scheme::Parse(scheme),
          .layers = std::vector<LayerShape>(kLayers, {.kv_heads = kHeads, .k_dim = kDim, .v_dim = kValueDim}),
          .num_sequences = 2,
          .memory_limit_bytes = limit_bytes};
}

std::unique_ptr<KvCache> MakeCache(const CacheConfig& config) {
  auto cache = KvCache::Create(config);
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  return std::move(cache.value());
}

std::vector<float> Values(int64_t count, float value) {
  return std::vector<float>(static_cast<size_t>(count) * kHeads * kValueDim, value);
}

Status Append(KvCache& cache, int sequence, int layer, int64_t first, int64_t end) {
  return cache.Append(sequence, layer, end - first, TestRows(Range(first, end), layer).data(),
                      Values(end - first, static_cast<float>(layer + 1)).data());
}

float ReadOne(KvStore& store, int sequence, int64_t row) {
  std::vector<F16> values(kHeads * static_cast<size_t>(store.config().codec.shape().dim));
  EXPECT_TRUE(store.Read(Team(), sequence, row, 1, {.data = values.data(), .row_stride = values.size()}).ok());
  return ToFloat(values[0]);
}

TEST(KvCache, AppendPassesTokenClassesOn) {
  // What two caches make of the same rows differs when a codec that asks is told of other tokens.
  const auto cache = MakeCache(SmallConfig("k=raw v=vidkv:salient=4 sink=0 recent=0"));
  std::vector<float> v(64 * kHeads * kValueDim);
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i * 7919 % 101) - 50.0f;
  for (int sequence : {0, 1}) {
    std::vector<TokenClass> classes(64);
    for (size_t t = 0; t < 4; ++t) classes[static_cast<size_t>(sequence) * 32 + t] = TokenClass::kSalient;
    ASSERT_TRUE(cache->Append(sequence, 0, 64, TestRows(Range(0, 64)).data(), v.data(), {}, classes.data()).ok());
    ASSERT_TRUE(cache->Seal(sequence).ok());
  }
  const PageView first = cache->values(0).View(0)[0].pages[0], second = cache->values(0).View(1)[0].pages[0];
  const size_t bytes = kHeads * cache->values(0).config().codec.block_bytes();
  EXPECT_NE(std::memcmp(first.blocks, second.blocks, bytes), 0);
}

TEST(KvCache, KeysBeforeRopeNeedToKnowHowTheyAreTurned) {
  CacheConfig config = SmallConfig("k=kvquant:fit=256 v=raw");
  EXPECT_THAT(KvCache::Create(config).status().message(),
              HasSubstr("layer 0 K: codec kvquant keeps keys as they were before RoPE"));
  config.ropes = {RopeShape::OfBase(100, kDim, false)};
  EXPECT_EQ(KvCache::Create(config).status().message(), "1 RoPE shapes for 2 layers");
  config.ropes.push_back({});
  EXPECT_THAT(KvCache::Create(config).status().message(), HasSubstr("layer 1 K: codec kvquant keeps keys"));
  config.ropes[1] = RopeShape::OfBase(100, 2 * kDim, false);
  EXPECT_THAT(KvCache::Create(config).status().message(), HasSubstr("layer 1 K: RoPE has 16 frequencies"));

  config.ropes[1] = config.ropes[0];
  const auto cache = MakeCache(config);
  const std::vector<float> k = TestRows({0, 1}), v = Values(2, 1.0f);
  const std::vector<int32_t> positions = {40, 7};
  ASSERT_TRUE(cache->Append(0, 0, 2, k.data(), v.data(), positions).ok());
  EXPECT_EQ(cache->keys(0).Position(0, 1), 7);
  EXPECT_FALSE(cache->values(0).keeps_positions());
  EXPECT_EQ(cache->Append(0, 0, 1, k.data(), v.data(), positions).message(), "append of 1 rows with 2 positions");
  config.scheme = *Scheme::Parse("k=kvquant v=raw");
  EXPECT_THAT(KvCache::Create(config).status().message(), HasSubstr("calibrat"));
}

TEST(KvCache, AppendsToLayersAndSeals) {
  const auto cache = MakeCache(SmallConfig("raw sink=4 recent=10"));
  EXPECT_EQ(cache->num_layers(), kLayers);
  for (int layer = 0; layer < kLayers; ++layer) {
    ASSERT_TRUE(Append(*cache, 0, layer, 0, 70).ok());
    ASSERT_TRUE(Append(*cache, 0, layer, 70, 100).ok());
  }
  ASSERT_TRUE(cache->Seal(0).ok());
  for (int layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(cache->keys(layer).num_rows(0), 100);
    EXPECT_EQ(cache->keys(layer).config().layer, layer);
    EXPECT_EQ(cache->keys(layer).View(0).size(), 3u);  // sinks, page 0, open page
    EXPECT_EQ(ReadOne(cache->keys(layer), 0, 80), TestValue(80, 0, 0, layer));
    EXPECT_EQ(ReadOne(cache->values(layer), 0, 80), static_cast<float>(layer + 1));
  }
  const Footprint footprint = cache->footprint();
  EXPECT_EQ(footprint.rows, 100u * kLayers * 2);
  EXPECT_EQ(footprint.values, 100u * kLayers * kHeads * (kDim + kValueDim));
  EXPECT_LE(footprint.total(), cache->memory_bytes());
}

TEST(KvCache, ForkTruncateClear) {
  const auto cache = MakeCache(SmallConfig());
  for (int layer = 0; layer < kLayers; ++layer) ASSERT_TRUE(Append(*cache, 0, layer, 0, 70).ok());
  ASSERT_TRUE(cache->Fork(0, 1).ok());
  ASSERT_TRUE(cache->Truncate(0, 5).ok());
  EXPECT_EQ(cache->values(1).num_rows(0), 5);
  EXPECT_EQ(ReadOne(cache->values(1), 1, 69), 2.0f);
  cache->Clear(1);
  EXPECT_EQ(cache->keys(0).num_rows(1), 0);
  EXPECT_EQ(cache->keys(0).num_rows(0), 5);
}

TEST(KvCache, KeysAndValuesStayOfOneLength) {
  const auto cache = MakeCache(SmallConfig());
  ASSERT_TRUE(Append(*cache, 0, 1, 0, 3).ok());
  const Status status = cache->Append(0, 1, 2, TestRows({3, 4}).data(), Values(2, NAN).data());
  EXPECT_THAT(status.message(), HasSubstr("layer 1 V, head 0, row 3"));
  EXPECT_EQ(cache->keys(1).num_rows(0), 3);
  EXPECT_EQ(cache->values(1).num_rows(0), 3);
}

TEST(KvCache, AForkThatFailsLeavesNoHalfCopy) {
  constexpr size_t kOnePageEach = 64 * kHeads * (kDim + kValueDim) * 2;  // one layer, one open page of K and V
  const auto cache = MakeCache(SmallConfig("raw", kLayers * kOnePageEach + kOnePageEach));
  for (int layer = 0; layer < kLayers; ++layer) ASSERT_TRUE(Append(*cache, 0, layer, 0, 10).ok());
  EXPECT_EQ(cache->Fork(0, 1).code(), StatusCode::kOutOfMemory);
  for (int layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(cache->keys(layer).num_rows(1), 0);
    EXPECT_EQ(cache->values(layer).num_rows(0), 10);
  }
}

TEST(KvCache, RefusalsNameLayerAndSide) {
  CacheConfig config = SmallConfig();
  config.layers[1].v_dim = 20;
  EXPECT_THAT(KvCache::Create(config).status().message(), HasSubstr("layer 1 V: head size 20"));
  config = SmallConfig("k=raw:type=fp8 v=raw");
  EXPECT_THAT(KvCache::Create(config).status().message(), HasSubstr("layer 0 K: codec raw: type=fp8"));
  config.layers.clear();
  EXPECT_THAT(KvCache::Create(config).status().message(), HasSubstr("at least one layer"));
  const auto cache = MakeCache(SmallConfig());
  EXPECT_THAT(Append(*cache, 0, 2, 0, 1).message(), HasSubstr("2 layers"));
  EXPECT_THAT(Append(*cache, 2, 0, 0, 1).message(), HasSubstr("sequence 2"));
  EXPECT_EQ(cache->Fork(0, 2).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvant::test
