#include "codec/parts/page_scalars.h"

#include <algorithm>
#include <cmath>

#include "codec/parts/f16_words.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/strip.h"

namespace kvant {

Status StoreTokenScales(const char* codec, const float* scales, F16* stored) {
  for (int t = 0; t < kTokensPerPage; ++t) {
    stored[t] = ToF16(scales[t]);
    if (std::isfinite(ToFloat(stored[t]))) continue;
    return Status::InvalidArgument(
        StrFormat("%s: scale %g of token %d does not fit fp16", codec, static_cast<double>(scales[t]), t));
  }
  return Status::Ok();
}

Status CheckTokenScales(const char* codec, const F16* stored) {
  for (int t = 0; t < kTokensPerPage; ++t) {
    const float scale = ToFloat(stored[t]);
    if (std::isfinite(scale) && !std::signbit(scale)) continue;
    return Status::Corruption(StrFormat("%s: scale %d is not valid", codec, t));
  }
  return Status::Ok();
}

void LoadTokenScales(const F16* stored, float* scales) {
  GetFixedPointKernels().from_f16(Words(stored), kTokensPerPage, scales);
}

void StorePageMeans(const float* rows, int dim, F16* stored, float* means) {
  std::fill_n(means, dim, 0.0f);
  for (int t = 0; t < kTokensPerPage; ++t) {
    for (int c = 0; c < dim; ++c) means[c] += rows[t * dim + c];
  }
  for (int c = 0; c < dim; ++c) means[c] /= kTokensPerPage;
  GetFixedPointKernels().to_f16(means, dim, Words(stored));
  LoadPageMeans(stored, dim, means);
}

void LoadPageMeans(const F16* stored, int dim, float* means) {
  GetFixedPointKernels().from_f16(Words(stored), dim, means);
}

Status CheckPageMeans(const char* codec, const F16* stored, int dim) {
  for (int c = 0; c < dim; ++c) {
    if (std::isfinite(ToFloat(stored[c]))) continue;
    return Status::Corruption(StrFormat("%s: mean %d is not valid", codec, c));
  }
  return Status::Ok();
}

void SubtractPageMeans(const float* means, int dim, float* strip) {
  for (int c = 0; c < dim; ++c) {
    for (int r = 0; r < kStripRows; ++r) strip[c * kStripRows + r] -= means[c];
  }
}

void ScorePageMeans(const F16* stored, int dim, const float* queries, int heads, float* bias) {
  alignas(64) float means[kMaxStripDim];
  LoadPageMeans(stored, dim, means);
  GetFixedPointKernels().dots(queries, heads, means, dim, bias);
}

void AccumulatePageMeans(const F16* stored, int dim, const float* weights, int heads, float* acc, size_t acc_stride) {
  alignas(64) float means[kMaxStripDim];
  LoadPageMeans(stored, dim, means);
  for (int h = 0; h < heads; ++h, acc += acc_stride) {
    float total = 0.0f;
    for (int t = 0; t < kTokensPerPage; ++t) total += weights[h * kTokensPerPage + t];
    for (int c = 0; c < dim; ++c) acc[c] += total * means[c];
  }
}

}  // namespace kvant
