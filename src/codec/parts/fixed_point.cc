#include "codec/parts/fixed_point.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvant {
namespace {

void QuantizeQuery(const float* queries, size_t stride, int heads, int channels, int planes, const float* channel_scale,
                   int8_t* out, float* unit, int32_t* offset_sum) {
  for (int h = 0; h < heads; ++h) {
    const float* q = queries + static_cast<size_t>(h) * stride;
    const auto value = [&](int c) { return channel_scale ? q[c] * channel_scale[c] : q[c]; };
    float max = 0.0f;
    for (int c = 0; c < channels; ++c) max = std::max(max, std::abs(value(c)));
    const float steps = static_cast<float>(kQueryMax[planes]);
    const float inverse = max > kLeastOperand ? steps / max : 0.0f;
    unit[h] = max / steps;
    int32_t sum = 0;
    for (int c = 0; c < channels; ++c) {
      const int v = static_cast<int>(std::nearbyint(value(c) * inverse));
      sum += v;
      int8_t* column = out + static_cast<size_t>(h * planes) * channels + c;
      if (planes == 1) {
        column[0] = static_cast<int8_t>(v);
      } else {
        const int hi = (v + 64) >> 7;
        column[0] = static_cast<int8_t>(hi);
        column[channels] = static_cast<int8_t>(v - hi * 128);
      }
    }
    if (offset_sum) offset_sum[h] = sum;
  }
}

void FinishScores(const int32_t* sums, int heads, int planes, int first_token, int last_token, const float* unit,
                  const int32_t* offset_sum, int level_offset, const float* token_scale, const float* bias,
                  float* scores) {
  for (int h = 0; h < heads; ++h) {
    const int32_t* column = sums + h * planes * 64;
    for (int t = first_token; t < last_token; ++t) {
      const int32_t sum = planes == 2 ? column[t] * 128 + column[64 + t] : column[t];
      const float score = static_cast<float>(level_offset ? sum - level_offset * offset_sum[h] : sum) * unit[h];
      scores[h * 64 + t] = score * (token_scale ? token_scale[t] : 1.0f) + (bias ? bias[h] : 0.0f);
    }
  }
}

int QuantizeWeights(const float* weights, int heads, const float* token_scale, float one_plane_below, int8_t* out,
                    float* unit, float* sum) {
  const int planes = *std::max_element(weights, weights + heads * 64) < one_plane_below ? 1 : 2;
  const int step = planes == 1 ? 128 : 1;
  for (int h = 0; h < heads; ++h) {
    const auto value = [&](int t) { return token_scale ? weights[h * 64 + t] * token_scale[t] : weights[h * 64 + t]; };
    float max = 0.0f;
    for (int t = 0; t < 64; ++t) max = std::max(max, value(t));
    const float steps = static_cast<float>(kWeightMax / step);
    const float inverse = max > kLeastOperand ? steps / max : 0.0f;
    unit[h] = max / (steps * static_cast<float>(step));
    int32_t total = 0;
    for (int t = 0; t < 64; ++t) {
      const int v = static_cast<int>(std::nearbyint(value(t) * inverse)) * step;
      total += v;
      out[h * 128 + t] = static_cast<int8_t>(v >> 7);
      if (planes == 2) out[h * 128 + 64 + t] = static_cast<int8_t>(v & 127);
    }
    if (sum) sum[h] = static_cast<float>(total) * unit[h];
  }
  return planes;
}

float Dot(const float* a, const float* b, int n) { return std::inner_product(a, a + n, b, 0.0f); }

void Dots(const float* rows, int count, const float* b, int n, float* out) {
  for (int r = 0; r < count; ++r, rows += n) out[r] = Dot(rows, b, n);
}

void FromF16(const uint16_t* in, int count, float* out) {
  for (int i = 0; i < count; ++i) out[i] = ToFloat(F16{in[i]});
}

void ToF16Bits(const float* in, int count, uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = ToF16(in[i]).bits;
}

}  // namespace

const FixedPointKernels& ReferenceFixedPointKernels() {
  static constexpr FixedPointKernels kKernels = {QuantizeQuery, FinishScores, QuantizeWeights, Dot,
                                                 Dots,          FromF16,      ToF16Bits};
  return kKernels;
}

}  // namespace kvant
