#include "codec/parts/split_mix.h"

#include <gtest/gtest.h>

namespace kvant {
namespace {

// What others' implementations give for this seed, which is common in their tests.
TEST(SplitMix, GivesThePublishedSequence) {
  SplitMix64 random(1234567);
  EXPECT_EQ(random.Next(), 6457827717110365317u);
  EXPECT_EQ(random.Next(), 3203168211198807973u);
  EXPECT_EQ(random.Next(), 9817491932198370423u);
}

TEST(SplitMix, FloatsAreTheUpperBits) {
  SplitMix64 uniform(5), symmetric(5), bits(5);
  for (int i = 0; i < 100; ++i) {
    const double share = static_cast<double>(bits.Next() >> 11) / 9007199254740992.0;
    EXPECT_EQ(uniform.Uniform(), share);
    EXPECT_EQ(symmetric.Symmetric(), 2.0 * share - 1.0);
  }
}

}  // namespace
}  // namespace kvant
