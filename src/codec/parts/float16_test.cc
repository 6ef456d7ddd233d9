// The vector conversions of float16-inl.h, through the kernels that use them, against base/float16.h.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "base/aligned_buffer.h"
#include "base/float16.h"
#include "base/simd_target.h"
#include "codec/parts/fixed_point.h"

namespace kvant {
namespace {

class Float16Targets : public testing::Test {
 protected:
  void TearDown() override { SetSimdTarget(""); }
};

TEST_F(Float16Targets, EveryWordSurvives) {
  AlignedBuffer<uint16_t> words(65536), again(65536);
  for (size_t i = 0; i < words.size(); ++i) words[i] = (i & 0x7C00) == 0x7C00 ? 0 : static_cast<uint16_t>(i);
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    AlignedBuffer<float> values(words.size());
    GetFixedPointKernels().from_f16(words.data(), 65536, values.data());
    GetFixedPointKernels().to_f16(values.data(), 65536, again.data());
    for (size_t i = 0; i < words.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(ToFloat(F16{words[i]}))) << target;
      ASSERT_EQ(again[i], words[i]) << target;
    }
  }
}

TEST_F(Float16Targets, InfinitiesAndNaNStay) {
  AlignedBuffer<uint16_t> words(2048);  // all there are
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint16_t>(0x7C00 + (i % 1024) + (i / 1024) * 0x8000);
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    AlignedBuffer<float> values(words.size());
    GetFixedPointKernels().from_f16(words.data(), 2048, values.data());
    for (size_t i = 0; i < words.size(); ++i) {
      ASSERT_EQ(std::isinf(values[i]), i % 1024 == 0) << target << ' ' << words[i];
      ASSERT_EQ(std::isnan(values[i]), i % 1024 != 0) << target << ' ' << words[i];
      ASSERT_EQ(std::signbit(values[i]), i >= 1024) << target << ' ' << words[i];
    }
  }
}

TEST_F(Float16Targets, RoundsToNearestEven) {
  AlignedBuffer<float> values(65536);
  std::mt19937 random(1);
  for (size_t i = 0; i < values.size(); ++i) {
    // Halfway points between neighbouring words, and anything finite.
    values[i] =
        i % 2 ? 0.5f * (ToFloat(F16{static_cast<uint16_t>(i / 3)}) + ToFloat(F16{static_cast<uint16_t>(i / 3 + 1)}))
              : std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isfinite(values[i])) values[i] = -65519.996f;
  }
  AlignedBuffer<uint16_t> words(values.size());
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    GetFixedPointKernels().to_f16(values.data(), 65536, words.data());
    for (size_t i = 0; i < words.size(); ++i) ASSERT_EQ(words[i], ToF16(values[i]).bits) << target << ' ' << values[i];
  }
}

}  // namespace
}  // namespace kvant
