#include "codec/parts/covariance.h"

#include <algorithm>

#include "base/all_finite.h"
#include "page/block_layout.h"

namespace kvant {

void MirrorUpper(int dim, float factor, float* c) {
  const auto n = static_cast<size_t>(dim);
  for (size_t i = 0; i < n; ++i) {
    c[i * n + i] *= factor;
    for (size_t j = i + 1; j < n; ++j) c[j * n + i] = c[i * n + j] *= factor;
  }
}

Result<std::vector<float>> SecondMoments(const char* codec, const float* rows, size_t count, int dim) {
  std::vector<float> moments(static_cast<size_t>(dim) * static_cast<size_t>(dim));
  GetCovarianceKernels().add(rows, count, dim, moments.data());
  MirrorUpper(dim, 1.0f / static_cast<float>(count), moments.data());
  if (AllFinite(moments)) return moments;
  return Status::InvalidArgument(StrFormat("%s: rows are too large to fit a basis to", codec));
}

void CentrePages(size_t count, int dim, float* rows) {
  const auto n = static_cast<size_t>(dim);
  for (size_t first = 0; first < count; first += kTokensPerPage) {
    const size_t end = std::min(first + kTokensPerPage, count);
    for (size_t c = 0; c < n; ++c) {
      float sum = 0.0f;
      for (size_t t = first; t < end; ++t) sum += rows[t * n + c];
      for (size_t t = first; t < end; ++t) rows[t * n + c] -= sum / static_cast<float>(end - first);
    }
  }
}

}  // namespace kvant
