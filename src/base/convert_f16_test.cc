#include "base/convert_f16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "base/simd_target.h"

namespace kvant {
namespace {

/// Random finite floats of all magnitudes around the range of fp16, its subnormals and overflow included,
/// then every fp16 value and the points halfway to the next, where rounding is decided.
std::vector<float> Inputs() {
  std::vector<float> inputs;
  std::mt19937 random(1);
  for (int i = 0; i < 50000; ++i) {
    const uint32_t exponent = 127 - 30 + static_cast<uint32_t>(random()) % 50;
    inputs.push_back(std::bit_cast<float>((static_cast<uint32_t>(random()) & 0x807FFFFFu) | exponent << 23));
  }
  for (uint16_t bits = 0; bits < 0x7BFF; ++bits) {
    const float low = ToFloat(F16{bits}), high = ToFloat(F16{static_cast<uint16_t>(bits + 1)});
    inputs.insert(inputs.end(), {low, -low, (low + high) / 2, std::nextafter((low + high) / 2, high)});
  }
  return inputs;
}

TEST(ConvertF16, EveryTargetRoundsLikeTheDefinition) {
  const std::vector<float> inputs = Inputs();
  for (const std::string& target : SimdTargets()) {
    SCOPED_TRACE(target);
    ASSERT_TRUE(SetSimdTarget(target));
    std::vector<F16> converted(inputs.size());
    FloatsToF16(inputs.data(), inputs.size(), converted.data());
    for (size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_EQ(converted[i].bits, ToF16(std::clamp(inputs[i], -kF16Max, kF16Max)).bits) << inputs[i];
    }
  }
  SetSimdTarget("");
}

TEST(ConvertF16, WritesNoMoreThanAsked) {
  const std::vector<float> ones(64, 1.0f);
  for (size_t n = 0; n <= 40; ++n) {
    std::vector<F16> out(64);
    FloatsToF16(ones.data(), n, out.data());
    EXPECT_EQ(std::ranges::count(out, ToF16(1.0f).bits, &F16::bits), static_cast<long>(n));
  }
}

}  // namespace
}  // namespace kvant
