#include "codec/parts/covariance.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <random>

#include "base/simd_target.h"

namespace kvant {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(CovarianceTest, EqualsTheProduct) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const int dim : {16, 80, 128}) {
      for (const int count : {1, 64, 150}) {
        const Matrix rows = Matrix::NullaryExpr(count, dim, [&] { return normal(rng); });
        Matrix c = Matrix::Zero(dim, dim);
        GetCovarianceKernels().add(rows.data(), static_cast<size_t>(count) / 2, dim, c.data());
        GetCovarianceKernels().add(rows.row(count / 2).data(), static_cast<size_t>(count - count / 2), dim, c.data());
        MirrorUpper(dim, 0.5f, c.data());
        const Matrix want = 0.5f * rows.transpose() * rows;
        EXPECT_LT((c - want).norm(), 1e-5f * want.norm()) << target << " " << dim << " x " << count;
      }
    }
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
