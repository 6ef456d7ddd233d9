#include "codec/parts/covariance.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <random>
#include <vector>

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

TEST(CovarianceTest, SecondMomentsAreAveraged) {
  std::vector<float> rows(3 * 16);  // (1, 2, 0, ...), (3, 0, ...), (0, 6, 0, ...)
  rows[0] = 1.0f, rows[1] = 2.0f, rows[16] = 3.0f, rows[33] = 6.0f;
  const Result<std::vector<float>> moments = SecondMoments("own", rows.data(), 3, 16);
  ASSERT_TRUE(moments.ok());
  ASSERT_EQ(moments->size(), 256u);
  EXPECT_FLOAT_EQ((*moments)[0], 10.0f / 3.0f);
  EXPECT_FLOAT_EQ((*moments)[1], 2.0f / 3.0f);
  EXPECT_FLOAT_EQ((*moments)[16], 2.0f / 3.0f);
  EXPECT_FLOAT_EQ((*moments)[17], 40.0f / 3.0f);
  EXPECT_EQ((*moments)[34], 0.0f);
}

TEST(CovarianceTest, RefusesRowsWhoseMomentsOverflow) {
  const std::vector<float> rows(16, 1e30f);
  const Result<std::vector<float>> moments = SecondMoments("own", rows.data(), 1, 16);
  ASSERT_FALSE(moments.ok());
  EXPECT_EQ(moments.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(moments.status().message(), "own: rows are too large to fit a basis to");
}

TEST(CovarianceTest, PagesLoseTheirOwnMeans) {
  constexpr size_t kCount = 64 + 4;  // the second page is short
  std::vector<float> rows(kCount * 16);
  for (size_t t = 0; t < kCount; ++t) {
    rows[t * 16] = static_cast<float>(t);
    rows[t * 16 + 15] = t < 64 ? 1.0f : 5.0f;
  }
  CentrePages(kCount, 16, rows.data());
  for (size_t t = 0; t < kCount; ++t) {
    EXPECT_EQ(rows[t * 16], static_cast<float>(t) - (t < 64 ? 31.5f : 65.5f)) << t;
    EXPECT_EQ(rows[t * 16 + 1], 0.0f) << t;
    EXPECT_EQ(rows[t * 16 + 15], 0.0f) << t;
  }
}

}  // namespace
}  // namespace kvant
