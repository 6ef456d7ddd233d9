#include "sampler.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvant {
namespace {

TEST(SamplerTest, TemperatureZeroIsGreedy) {
  Sampler sampler(0, 1);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(sampler.Next(std::vector<float>{0, 5, 4.9f}), 1);
}

TEST(SamplerTest, DrawsWithTheSoftmaxProbabilities) {
  // Temperature 2 makes 0.8 : 0.2 of logits that are 2 ln 4 apart.
  const std::vector<float> logits = {static_cast<float>(2 * std::log(4.0)), 0};
  Sampler sampler(2, 7);
  int first = 0;
  constexpr int kDraws = 20'000;
  for (int i = 0; i < kDraws; ++i) first += sampler.Next(logits) == 0;
  EXPECT_NEAR(first, 0.8 * kDraws, 5 * std::sqrt(0.16 * kDraws));
}

TEST(SamplerTest, TheSeedDecides) {
  const std::vector<float> logits(100, 0.0f);
  Sampler a(1, 3), b(1, 3), c(1, 4);
  int same = 0;
  for (int i = 0; i < 50; ++i) {
    const int token = a.Next(logits);
    EXPECT_EQ(token, b.Next(logits));
    same += token == c.Next(logits);
  }
  EXPECT_LT(same, 10);
}

}  // namespace
}  // namespace kvant
