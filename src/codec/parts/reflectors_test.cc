#include "codec/parts/reflectors.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <limits>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "codec/parts/strip.h"

namespace kvant {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int kDims[] = {16, 64, 80, 128, 256};

Matrix Gaussian(int rows, int columns, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  return Matrix::NullaryExpr(rows, columns, [&] { return normal(rng); });
}

Matrix RandomOrthogonal(int dim) {
  const Matrix q = Gaussian(dim, dim, static_cast<unsigned>(dim)).householderQr().householderQ();
  return q;
}

std::vector<std::byte> Quantized(const Matrix& q) {
  Matrix scratch = q;
  std::vector<std::byte> bytes(ReflectorBytes(static_cast<int>(q.rows()), static_cast<int>(q.rows()) - 1));
  QuantizeReflectors(static_cast<int>(q.rows()), static_cast<int>(q.rows()) - 1, scratch.data(), bytes.data());
  return bytes;
}

TEST(ReflectorsTest, SizesAddUp) {
  EXPECT_EQ(ReflectorBytes(128, 127), 127u * 2 + 127u * 64);
  EXPECT_EQ(ReflectorTailOfs(128, 0), 0u);
  EXPECT_EQ(ReflectorTailOfs(128, 2), 127u + 126u);
  EXPECT_EQ(ReflectorTailOfs(128, 126) + 1, 127u * 64);
}

TEST(ReflectorsTest, IsOrthogonalAndNearTheMatrix) {
  for (const int dim : kDims) {
    const Matrix q = RandomOrthogonal(dim);
    const std::vector<std::byte> bytes = Quantized(q);
    Matrix stored = Matrix::Identity(dim, dim);  // row j becomes column j of Q
    for (int j = 0; j < dim; ++j) ReflectRowBack(ViewReflectors(bytes.data(), dim, dim - 1), stored.row(j).data());
    EXPECT_LT((stored * stored.transpose() - Matrix::Identity(dim, dim)).norm(), 1e-5f * static_cast<float>(dim));
    Matrix turned = stored * q;  // the identity, up to signs and rounding
    for (int j = 0; j < dim; ++j) turned.row(j) *= turned(j, j) < 0.0f ? -1.0f : 1.0f;
    const float error = (turned - Matrix::Identity(dim, dim)).norm() / std::sqrt(static_cast<float>(dim));
    EXPECT_GT(error, 0.002f) << dim;
    EXPECT_LT(error, 0.03f) << dim;
  }
}

TEST(ReflectorsTest, BackUndoesForward) {
  const std::vector<std::byte> bytes = Quantized(RandomOrthogonal(128));
  const ReflectorView q = ViewReflectors(bytes.data(), 128, 127);
  const Matrix row = Gaussian(1, 128, 3);
  Matrix mapped = row;
  ReflectRow(q, mapped.data());
  EXPECT_GT((mapped - row).norm(), 1.0f);
  ReflectRowBack(q, mapped.data());
  EXPECT_LT((mapped - row).norm(), 1e-4f);
}

TEST(ReflectorsTest, KeepsUnitVectors) {
  for (const float sign : {1.0f, -1.0f}) {
    const std::vector<std::byte> bytes = Quantized(sign * Matrix::Identity(16, 16));
    Matrix row = Gaussian(1, 16, 5);
    const Matrix before = row;
    ReflectRow(ViewReflectors(bytes.data(), 16, 15), row.data());
    EXPECT_LT((row.cwiseAbs() - before.cwiseAbs()).norm(), 1e-6f);
  }
}

TEST(ReflectorsTest, ScalesOutsideZeroToOneAreCorrupt) {
  std::vector<std::byte> bytes = Quantized(RandomOrthogonal(16));
  const ReflectorView q = ViewReflectors(bytes.data(), 16, 15);
  EXPECT_TRUE(CheckReflectors("own", q).ok());
  auto* scales = reinterpret_cast<F16*>(bytes.data());
  const F16 kept = scales[14];
  for (const float scale : {-0.5f, 1.5f, std::numeric_limits<float>::quiet_NaN()}) {
    scales[14] = ToF16(scale);
    const Status status = CheckReflectors("own", q);
    EXPECT_EQ(status.code(), StatusCode::kCorruption) << scale;
    EXPECT_EQ(status.message(), "own: reflector 14 is out of range");
  }
  scales[14] = kept;
  EXPECT_TRUE(CheckReflectors("own", q).ok());
}

// Rows [3 * 16, dim] through the kernel, as three strips.
Matrix Kernel(const ReflectorView& q, bool forward, const Matrix& rows) {
  constexpr int kStrips = 3;
  const auto dim = static_cast<size_t>(q.dim);
  AlignedBuffer<float> strips(kStrips * kStripRows * dim);
  for (size_t s = 0; s < kStrips; ++s) {
    LoadStrip(rows.data() + s * kStripRows * dim, dim, kStripRows, q.dim, strips.data() + s * kStripRows * dim);
  }
  (forward ? GetReflectorKernels().forward : GetReflectorKernels().back)(q, kStrips, strips.data());
  Matrix out(rows.rows(), rows.cols());
  for (size_t s = 0; s < kStrips; ++s) {
    StoreStrip(strips.data() + s * kStripRows * dim, kStripRows, q.dim, dim, out.data() + s * kStripRows * dim);
  }
  return out;
}

TEST(ReflectorsTest, EveryTargetAgreesWithTheRow) {
  for (const int dim : kDims) {
    const std::vector<std::byte> bytes = Quantized(RandomOrthogonal(dim));
    const ReflectorView q = ViewReflectors(bytes.data(), dim, dim - 1);
    const Matrix rows = Gaussian(3 * kStripRows, dim, 11);
    for (const bool forward : {true, false}) {
      Matrix want = rows;
      for (int r = 0; r < want.rows(); ++r) (forward ? ReflectRow : ReflectRowBack)(q, want.row(r).data());
      for (const std::string& target : SimdTargets()) {
        ASSERT_TRUE(SetSimdTarget(target));
        EXPECT_LT((Kernel(q, forward, rows) - want).norm() / rows.norm(), 2e-6f) << target << " dim " << dim;
      }
    }
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
