#include "eval/cache_cost.h"

#include <gtest/gtest.h>

#include "cache/kv_store.h"
#include "eval/distortion.h"
#include "kvant/kv_cache.h"

namespace kvant {
namespace {

const std::vector<LayerShape> kLayers = {{.kv_heads = 2, .k_dim = 64, .v_dim = 32}, {1, 128, 128}};

// Bytes a real cache holds after each of `tokens` tokens; the largest so far.
size_t MeasuredPeak(const Scheme& scheme, int64_t tokens) {
  auto cache = KvCache::Create({.scheme = scheme,
                                .layers = kLayers,
                                .ropes = {RopeShape::OfBase(100, 64, false), RopeShape::OfBase(100, 128, true)}});
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  const auto values = NormalValues(128 + static_cast<size_t>(tokens), 1);
  size_t peak = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = values.data() + t;
    for (int layer = 0; layer < 2; ++layer) {
      EXPECT_TRUE((*cache)->Append(0, layer, 1, row, row).ok());
    }
    EXPECT_TRUE((*cache)->Seal(0).ok());
    peak = std::max(peak, (*cache)->footprint().total());
  }
  return peak;
}

TEST(CacheCostTest, AgreesWithARealCache) {
  for (const char* text :
       {"raw", "int:4 sink=4", "k=int:8 v=int:2 sink=0 recent=100", "decoquant:4,gauge=klt,fit=128,refit=256",
        "kvquant:3,fit=256", "k=kvquant:4,fit=300 v=int:4 sink=0"}) {
    const auto scheme = Scheme::Parse(text);
    ASSERT_TRUE(scheme.ok()) << scheme.status().message();
    const auto cost = CacheCost::Of(*scheme, kLayers);
    ASSERT_TRUE(cost.ok()) << cost.status().message();
    for (int64_t tokens : {1, 64, 200, 513}) {
      const double measured = static_cast<double>(MeasuredPeak(*scheme, tokens));
      EXPECT_NEAR(static_cast<double>(cost->PeakBytes(tokens)) / measured, 1.0, 0.01) << text << " at " << tokens;
    }
  }
}

TEST(CacheCostTest, BytesOfStoresAddUpToWhatARealCacheHolds) {
  const Scheme scheme = *Scheme::Parse("k=int:4 v=decoquant:2.5,code=trellis sink=4 recent=70 k1=raw v0=int:8");
  const auto cost = CacheCost::Of(scheme, kLayers);
  ASSERT_TRUE(cost.ok()) << cost.status().message();
  for (int64_t tokens : {1, 64, 200, 512}) {
    auto cache = KvCache::Create({.scheme = scheme, .layers = kLayers});
    ASSERT_TRUE(cache.ok());
    const auto values = NormalValues(128 * static_cast<size_t>(tokens), 1);
    for (int layer = 0; layer < 2; ++layer) {
      ASSERT_TRUE((*cache)->Append(0, layer, tokens, values.data(), values.data()).ok());
    }
    ASSERT_TRUE((*cache)->Seal(0).ok());
    size_t sum = 0;
    for (int layer = 0; layer < 2; ++layer) {
      EXPECT_EQ(cost->StoreBytes(layer, true, tokens), (*cache)->keys(layer).footprint().total()) << layer;
      EXPECT_EQ(cost->StoreBytes(layer, false, tokens), (*cache)->values(layer).footprint().total()) << layer;
      sum += cost->StoreBytes(layer, true, tokens) + cost->StoreBytes(layer, false, tokens);
    }
    EXPECT_EQ(sum, cost->BytesAt(tokens));
  }
}

TEST(CacheCostTest, LargestContextIsTheLastThatFits) {
  const auto cost = CacheCost::Of(*Scheme::Parse("int:4"), kLayers);
  ASSERT_TRUE(cost.ok());
  for (size_t bytes : {0u, 5'000u, 100'000u, 1'000'000u}) {
    const int64_t tokens = cost->LargestContext(bytes, 1 << 20);
    EXPECT_LE(cost->PeakBytes(tokens), bytes);
    EXPECT_GT(cost->PeakBytes(tokens + 1), bytes);
  }
  EXPECT_EQ(cost->LargestContext(1'000'000'000, 512), 512);
}

TEST(CacheCostTest, GrowsByTheSealedBytesPerToken) {
  const auto cost = CacheCost::Of(*Scheme::Parse("int:4"), kLayers);
  ASSERT_TRUE(cost.ok());
  const double grown = static_cast<double>(cost->PeakBytes(64 * 200) - cost->PeakBytes(64 * 100));
  EXPECT_NEAR(grown / (64 * 100), cost->BytesPerToken(), 1e-6);
}

TEST(CacheCostTest, ReportsWhatTheCacheRefuses) {
  const auto cost = CacheCost::Of(*Scheme::Parse("int:4"), {{.kv_heads = 2, .k_dim = 65, .v_dim = 64}});
  EXPECT_FALSE(cost.ok());
}

}  // namespace
}  // namespace kvant
