#include "codec/parts/f16_words.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvant {
namespace {

TEST(F16Words, SayWhatTheNumbersAre) {
  for (int i = 0; i <= 0xFFFF; ++i) {
    const auto word = static_cast<uint16_t>(i);
    const float value = ToFloat(F16{word});
    EXPECT_EQ(IsFiniteWord(word), std::isfinite(value)) << i;
    EXPECT_EQ(IsScaleWord(word), std::isfinite(value) && !std::signbit(value)) << i;
  }
}

TEST(F16Words, AreTheBitsInPlace) {
  F16 values[2] = {ToF16(1.0f), ToF16(-2.0f)};
  EXPECT_EQ(Words(values)[1], values[1].bits);
  Words(values)[0] = 0x4000;
  EXPECT_EQ(ToFloat(values[0]), 2.0f);
  const F16* const read_only = values;
  EXPECT_EQ(Words(read_only)[0], 0x4000);
}

}  // namespace
}  // namespace kvant
