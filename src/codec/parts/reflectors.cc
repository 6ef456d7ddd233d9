#include "codec/parts/reflectors.h"

#include <algorithm>
#include <cmath>

namespace kvant {
namespace {

// 2 / (v.v) of reflector k.
float Coefficient(const ReflectorView& q, int k) {
  const int8_t* tail = q.tails + ReflectorTailOfs(q.dim, k);
  const float scale = ToFloat(q.scales[k]);
  int sum = 0;
  for (int i = 0; i < q.dim - 1 - k; ++i) sum += tail[i] * tail[i];
  return 2.0f / (1.0f + scale * scale * static_cast<float>(sum));
}

// values[i * stride], i = 0..dim-1, reflected by H_k.
void Reflect(const ReflectorView& q, int k, float coefficient, size_t stride, float* values) {
  const int8_t* tail = q.tails + ReflectorTailOfs(q.dim, k);
  const float scale = ToFloat(q.scales[k]);
  float* head = values + static_cast<size_t>(k) * stride;
  float dot = 0.0f;
  for (int i = 0; i < q.dim - 1 - k; ++i)
    dot += static_cast<float>(tail[i]) * head[static_cast<size_t>(i + 1) * stride];
  const float step = coefficient * (head[0] + scale * dot);
  head[0] -= step;
  for (int i = 0; i < q.dim - 1 - k; ++i) {
    head[static_cast<size_t>(i + 1) * stride] -= step * scale * static_cast<float>(tail[i]);
  }
}

// The reflector that maps column k of the matrix (from row k on) to a multiple of e_k, rounded.
void StoreReflector(int dim, int k, const float* matrix, F16* scale, int8_t* tail) {
  const auto entry = [&](int i) {
    return matrix[static_cast<size_t>(i) * static_cast<size_t>(dim) + static_cast<size_t>(k)];
  };
  double norm2 = 0.0;
  float max = 0.0f;
  for (int i = k; i < dim; ++i) norm2 += static_cast<double>(entry(i)) * entry(i);
  for (int i = k + 1; i < dim; ++i) max = std::max(max, std::abs(entry(i)));
  const float first = entry(k) + std::copysign(static_cast<float>(std::sqrt(norm2)), entry(k));
  *scale = ToF16(first != 0.0f ? max / std::abs(first) / 127.0f : 0.0f);
  const float step = ToFloat(*scale) * first;
  for (int i = k + 1; i < dim; ++i) {
    const float code = step != 0.0f ? std::nearbyint(entry(i) / step) : 0.0f;
    tail[i - k - 1] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
}

}  // namespace

Status CheckReflectors(const char* codec, const ReflectorView& q) {
  for (int k = 0; k < q.count; ++k) {
    const float scale = ToFloat(q.scales[k]);
    if (scale >= 0.0f && scale <= 1.0f) continue;
    return Status::Corruption(StrFormat("%s: reflector %d is out of range", codec, k));
  }
  return Status::Ok();
}

// The rounded reflector is applied before the next one is taken, so that rounding does not add up.
void QuantizeReflectors(int dim, int count, float* matrix, std::byte* bytes) {
  const ReflectorView q = ViewReflectors(bytes, dim, count);
  for (int k = 0; k < count; ++k) {
    StoreReflector(dim, k, matrix, const_cast<F16*>(q.scales) + k,
                   const_cast<int8_t*>(q.tails) + ReflectorTailOfs(dim, k));
    const float coefficient = Coefficient(q, k);
    for (int j = k; j < dim; ++j) Reflect(q, k, coefficient, static_cast<size_t>(dim), matrix + j);
  }
}

void ReflectRow(const ReflectorView& q, float* row) {
  for (int k = 0; k < q.count; ++k) Reflect(q, k, Coefficient(q, k), 1, row);
}

void ReflectRowBack(const ReflectorView& q, float* row) {
  for (int k = q.count - 1; k >= 0; --k) Reflect(q, k, Coefficient(q, k), 1, row);
}

}  // namespace kvant
