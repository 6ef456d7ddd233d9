#include "calibrate/window_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace kvant {
namespace {

constexpr int kDim = 32;
constexpr int kHeads = 2;
constexpr int64_t kRows = 200;

std::vector<float> Noise(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Softmax weights of one query over the rows up to `pos`, in double.
std::vector<double> Weights(const std::vector<float>& keys, int head, const float* query, int64_t pos) {
  std::vector<double> weights;
  double sum = 0.0;
  for (int64_t t = 0; t <= pos; ++t) {
    double dot = 0.0;
    for (int c = 0; c < kDim; ++c) {
      dot += static_cast<double>(query[c]) *
             static_cast<double>(keys[static_cast<size_t>((t * kHeads + head) * kDim + c)]);
    }
    weights.push_back(std::exp(dot));
    sum += weights.back();
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

TEST(WindowAttention, SumsTheSquaresOfWhatCounts) {
  const std::vector<float> keys = Noise(kRows * kHeads * kDim, 1);
  const std::vector<float> noise = Noise(3 * kDim, 2);
  AlignedBuffer<float> queries(3 * kDim);
  std::copy(noise.begin(), noise.end(), queries.data());
  const int64_t positions[] = {63, 130, 199};
  WindowAttention attention(kHeads, kDim);
  attention.AddKeys(150, keys.data(), kHeads * kDim);
  attention.AddKeys(50, keys.data() + 150 * kHeads * kDim, kHeads * kDim);
  attention.AddQueries(1, 3, queries.data(), positions);
  std::vector<double> want(kRows, 0.0);
  for (int i = 0; i < 3; ++i) {
    const auto p = Weights(keys, 1, noise.data() + i * kDim, positions[i]);
    for (int64_t t = 4; t < positions[i] / 64 * 64; ++t) {
      want[static_cast<size_t>(t)] += p[static_cast<size_t>(t)] * p[static_cast<size_t>(t)];
    }
  }
  for (int64_t t = 0; t < kRows; ++t) {
    EXPECT_NEAR(attention.mass(1, t), want[static_cast<size_t>(t)], 2e-3 * want[static_cast<size_t>(t)]) << t;
    EXPECT_EQ(attention.mass(0, t), 0.0);
  }
}

TEST(WindowAttention, ForgetsAWindow) {
  const std::vector<float> keys = Noise(128 * kHeads * kDim, 1);
  AlignedBuffer<float> query(kDim);
  const int64_t position = 100;
  WindowAttention attention(kHeads, kDim);
  attention.AddKeys(128, keys.data(), kHeads * kDim);
  attention.AddQueries(0, 1, query.data(), &position);
  EXPECT_GT(attention.mass(0, 20), 0.0);
  attention.Clear();
  attention.AddKeys(64, keys.data(), kHeads * kDim);
  EXPECT_EQ(attention.mass(0, 20), 0.0);
}

}  // namespace
}  // namespace kvant
