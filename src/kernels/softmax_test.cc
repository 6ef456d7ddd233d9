#include "kernels/softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/simd_target.h"

namespace kvant {
namespace {

constexpr int kTokens = 64;
constexpr float kHidden = -std::numeric_limits<float>::infinity();

std::vector<float> Scores(int pages, float spread, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> scores(static_cast<size_t>(pages * kTokens));
  for (float& score : scores) score = normal(random);
  return scores;
}

// One head over all pages, with what its weights add up to when each token stands for its number.
struct Head {
  float reference = kHidden;
  float sum = 0.0f;
  double acc = 0.0;

  void Take(std::vector<float>* scores, const float* maybe_bias) {
    for (size_t first = 0; first < scores->size(); first += kTokens) {
      float rescale = 0.0f;
      float* page = scores->data() + first;
      GetSoftmaxKernels().page(page, 1, 0.0f, maybe_bias, nullptr, &reference, &sum, &rescale);
      acc *= static_cast<double>(rescale);
      for (size_t t = 0; t < kTokens; ++t) acc += static_cast<double>(page[t]) * static_cast<double>(first + t);
    }
  }
  double mean() const { return acc / static_cast<double>(sum); }
};

double Expected(const std::vector<float>& scores) {
  double sum = 0.0, acc = 0.0;
  for (size_t t = 0; t < scores.size(); ++t) {
    const double weight = std::exp(static_cast<double>(scores[t]));
    sum += weight;
    acc += weight * static_cast<double>(t);
  }
  return acc / sum;
}

TEST(SoftmaxTest, PagesAddUpWhateverTheirScores) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const float spread : {0.0f, 1.0f, 10.0f, 60.0f}) {
      std::vector<float> scores = Scores(50, spread, 1);
      const double want = Expected(scores);
      Head head;
      head.Take(&scores, nullptr);
      EXPECT_NEAR(head.mean(), want, 1e-5 * want) << target << ", spread " << spread;
    }
    SetSimdTarget("");
  }
}

TEST(SoftmaxTest, WeightsAreAboutShares) {
  std::vector<float> scores = Scores(200, 1.0f, 2);
  Head head;
  head.Take(&scores, nullptr);
  EXPECT_LT(head.sum, 2.0f * kMostSum);
  for (size_t t = scores.size() / 2; t < scores.size(); ++t) EXPECT_LT(scores[t], 1.0f / 32);
}

TEST(SoftmaxTest, HiddenTokensWeighNothing) {
  std::vector<float> bias(kTokens, 0.0f);
  for (size_t t = 10; t < kTokens; ++t) bias[t] = kHidden;
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    std::vector<float> scores = Scores(3, 1.0f, 3);
    Head head;
    head.Take(&scores, bias.data());
    for (size_t t = 0; t < scores.size(); ++t) EXPECT_EQ(scores[t] == 0.0f, t % kTokens >= 10) << target;

    std::fill(bias.begin(), bias.begin() + 10, kHidden);
    Head blind;
    blind.Take(&scores, bias.data());
    EXPECT_EQ(blind.reference, kHidden);
    EXPECT_EQ(blind.sum, 0.0f);
    std::fill(bias.begin(), bias.begin() + 10, 0.0f);
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
