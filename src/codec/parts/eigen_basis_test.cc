#include "codec/parts/eigen_basis.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace kvant {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(EigenBasisTest, DiagonalisesWithFallingValues) {
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  const Matrix a = Matrix::NullaryExpr(80, 64, [&] { return normal(rng); });
  const Matrix c = a.transpose() * a;
  Matrix vectors(64, 64);
  Eigen::VectorXf values(64);
  SymmetricEigen(64, c.data(), vectors.data(), values.data());
  EXPECT_LT((vectors.transpose() * c * vectors - Matrix(values.asDiagonal())).norm(), 1e-4f * c.norm());
  for (int i = 1; i < 64; ++i) EXPECT_LE(values[i], values[i - 1]);
}

double Cost(std::span<const double> variances, const std::vector<uint8_t>& bits) {
  double cost = 0.0;
  for (size_t i = 0; i < variances.size(); ++i) cost += variances[i] * LloydMaxCodebooks().by_bits[bits[i]].distortion;
  return cost;
}

double BruteForce(std::span<const double> variances, int total, std::vector<uint8_t>* bits) {
  if (bits->size() == variances.size())
    return total == 0 ? Cost(variances, *bits) : std::numeric_limits<double>::infinity();
  double best = std::numeric_limits<double>::infinity();
  for (const int width : kCodeWidths) {
    if (width > total) break;
    bits->push_back(static_cast<uint8_t>(width));
    best = std::min(best, BruteForce(variances, total - width, bits));
    bits->pop_back();
  }
  return best;
}

TEST(EigenBasisTest, AllocationMatchesBruteForce) {
  std::mt19937 rng(4);
  std::lognormal_distribution<double> lognormal(0.0, 1.5);
  for (int trial = 0; trial < 8; ++trial) {
    std::vector<double> variances(4);
    for (double& v : variances) v = lognormal(rng);
    for (int total = 0; total <= 32; ++total) {
      if (ReachableBits(4, total) != total) continue;
      std::vector<uint8_t> bits(4);
      AllocateBits(variances, LloydMaxCodebooks(), total, bits.data());
      EXPECT_EQ(std::accumulate(bits.begin(), bits.end(), 0), total);
      std::vector<uint8_t> prefix;
      EXPECT_NEAR(Cost(variances, bits), BruteForce(variances, total, &prefix), 1e-12);
    }
  }
}

TEST(EigenBasisTest, EqualTilesShareEvenly) {
  const std::vector<double> variances(8, 1.0);
  std::vector<uint8_t> bits(8);
  AllocateBits(variances, LloydMaxCodebooks(), 32, bits.data());
  EXPECT_EQ(bits, std::vector<uint8_t>(8, 4));
  AllocateBits(variances, LloydMaxCodebooks(), 20, bits.data());
  EXPECT_EQ(std::count(bits.begin(), bits.end(), 3), 4);
  EXPECT_EQ(std::count(bits.begin(), bits.end(), 2), 4);
}

TEST(EigenBasisTest, SomeTotalsCannotBeReached) {
  EXPECT_EQ(ReachableBits(1, 5), 4);
  EXPECT_EQ(ReachableBits(1, 7), 6);
  EXPECT_EQ(ReachableBits(8, 63), 62);
  EXPECT_EQ(ReachableBits(8, 64), 64);
  EXPECT_EQ(ReachableBits(8, 99), 64);
  EXPECT_EQ(ReachableBits(8, 33), 33);
}

}  // namespace
}  // namespace kvant
