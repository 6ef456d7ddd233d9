#include "codec/parts/covariance.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/covariance_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
constexpr DF df;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));

constexpr int kColumns = 8;    // accumulators, one per entry i: enough to hide the latency of the additions
constexpr size_t kChunk = 64;  // rows that stay in the first-level cache while all of c is visited

// c[i..i+7][j..j+lanes-1] += the products of a chunk of rows.
HWY_INLINE void AddPanel(const float* HWY_RESTRICT rows, size_t count, size_t dim, size_t i, size_t j,
                         float* HWY_RESTRICT c) {
  hn::Vec<DF> sum[kColumns];
  for (size_t k = 0; k < kColumns; ++k) sum[k] = hn::LoadU(df, c + (i + k) * dim + j);
  for (size_t r = 0; r < count; ++r) {
    const float* row = rows + r * dim;
    const auto values = hn::LoadU(df, row + j);
    for (size_t k = 0; k < kColumns; ++k) sum[k] = hn::MulAdd(hn::Set(df, row[i + k]), values, sum[k]);
  }
  for (size_t k = 0; k < kColumns; ++k) hn::StoreU(sum[k], df, c + (i + k) * dim + j);
}

void Add(const float* rows, size_t count, int dim, float* c) {
  const auto n = static_cast<size_t>(dim);
  for (size_t first = 0; first < count; first += kChunk) {
    const size_t chunk = std::min(kChunk, count - first);
    for (size_t i = 0; i < n; i += kColumns) {
      for (size_t j = i / 16 * 16; j < n; j += kLanes) AddPanel(rows + first * n, chunk, n, i, j, c);
    }
  }
}

const CovarianceKernels* Kernels() {
  static constexpr CovarianceKernels kKernels = {Add};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const CovarianceKernels& GetCovarianceKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
