#include "codec/parts/fixed_point.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"

namespace kvant {
namespace {

constexpr int kHeads = 5;

AlignedBuffer<float> Positive(size_t count, float most, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0.0f, most);
  AlignedBuffer<float> values(count);
  std::generate_n(values.data(), count, [&] { return uniform(random); });
  return values;
}

struct Weights {
  int planes = 0;
  std::vector<int8_t> bytes;  // those of the planes in use
  float unit[kHeads] = {};
  float sum[kHeads] = {};
};

Weights Quantized(const FixedPointKernels& kernels, const AlignedBuffer<float>& weights, const float* scale) {
  Weights out;
  AlignedBuffer<int8_t> bytes(kHeads * 128);
  out.planes = kernels.quantize_weights(weights.data(), kHeads, scale, 0.1f, bytes.data(), out.unit, out.sum);
  for (int h = 0; h < kHeads; ++h) {
    const int8_t* head = bytes.data() + h * 128;
    out.bytes.insert(out.bytes.end(), head, head + 64 * out.planes);
  }
  return out;
}

TEST(FixedPointTest, WeightsAreTheReferencesOnEveryTarget) {
  const AlignedBuffer<float> scale = Positive(64, 3.0f, 1);
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const float most : {1.0f, 0.05f, 1e-41f}) {
      const AlignedBuffer<float> weights = Positive(kHeads * 64, most, 2);
      const Weights got = Quantized(GetFixedPointKernels(), weights, scale.data());
      const Weights want = Quantized(ReferenceFixedPointKernels(), weights, scale.data());
      EXPECT_EQ(got.planes, most < 0.1f ? 1 : 2);
      EXPECT_EQ(got.planes, want.planes);
      EXPECT_EQ(got.bytes, want.bytes) << target << ", weights up to " << most;
      for (int h = 0; h < kHeads; ++h) {
        EXPECT_FLOAT_EQ(got.unit[h], want.unit[h]);
        EXPECT_FLOAT_EQ(got.sum[h], want.sum[h]);
      }
    }
  }
  SetSimdTarget("");
}

TEST(FixedPointTest, WeightsAreRightToHalfAStep) {
  const AlignedBuffer<float> weights = Positive(kHeads * 64, 1.0f, 3);
  const Weights got = Quantized(GetFixedPointKernels(), weights, nullptr);
  for (size_t i = 0; i < kHeads * 64; ++i) {
    const size_t head = i / 64, token = i % 64;
    const float integer = 128.0f * got.bytes[head * 128 + token] + got.bytes[head * 128 + 64 + token];
    EXPECT_NEAR(integer * got.unit[head], weights[i], 0.51f * got.unit[head]);
  }
}

TEST(FixedPointTest, QueriesAreTheReferencesOnEveryTarget) {
  constexpr int kChannels = 80;
  AlignedBuffer<float> queries = Positive(kHeads * kChannels, 2.0f, 4);
  for (size_t i = 0; i < queries.size(); ++i) queries[i] -= 1.0f;
  const AlignedBuffer<float> scale = Positive(kChannels, 3.0f, 5);
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const int planes : {1, 2}) {
      std::vector<int8_t> got(static_cast<size_t>(kHeads * planes * kChannels)), want(got.size());
      float got_unit[kHeads], want_unit[kHeads];
      int32_t got_sum[kHeads], want_sum[kHeads];
      GetFixedPointKernels().quantize_query(queries.data(), kChannels, kHeads, kChannels, planes, scale.data(),
                                            got.data(), got_unit, got_sum);
      ReferenceFixedPointKernels().quantize_query(queries.data(), kChannels, kHeads, kChannels, planes, scale.data(),
                                                  want.data(), want_unit, want_sum);
      EXPECT_EQ(got, want) << target << ", planes " << planes;
      for (int h = 0; h < kHeads; ++h) {
        EXPECT_FLOAT_EQ(got_unit[h], want_unit[h]);
        EXPECT_EQ(got_sum[h], want_sum[h]);
      }
    }
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
