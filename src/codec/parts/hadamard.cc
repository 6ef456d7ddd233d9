#include "codec/parts/hadamard.h"

#include <bit>
#include <cmath>

namespace kvant {
namespace {

int LargestPowerOfTwo(int dim) { return static_cast<int>(std::bit_floor(static_cast<unsigned>(dim))); }

// Multiplies by the signs of positions first.. and by `norm`.
void ScaleRow(int first, int n, float norm, float* row) {
  for (int i = 0; i < n; ++i) row[i] *= HadamardSign(first + i) * norm;
}

void ButterflyRow(int n, float* row) {
  for (int stride = 1; stride < n; stride *= 2) {
    for (int base = 0; base < n; base += 2 * stride) {
      for (int i = base; i < base + stride; ++i) {
        const float a = row[i];
        const float b = row[i + stride];
        row[i] = a + b;
        row[i + stride] = a - b;
      }
    }
  }
}

}  // namespace

void HadamardRow(int dim, float* row) {
  const int p = LargestPowerOfTwo(dim);
  const float norm = 1.0f / std::sqrt(static_cast<float>(p));
  ScaleRow(0, p, norm, row);
  ScaleRow(p, dim - p, 1.0f, row + p);
  ButterflyRow(p, row);
  if (p == dim) return;
  ScaleRow(dim, dim - p, 1.0f, row);
  ScaleRow(2 * dim - p, p, norm, row + dim - p);
  ButterflyRow(p, row + dim - p);
}

void InverseHadamardRow(int dim, float* row) {
  const int p = LargestPowerOfTwo(dim);
  const float norm = 1.0f / std::sqrt(static_cast<float>(p));
  if (p != dim) {
    ButterflyRow(p, row + dim - p);
    ScaleRow(2 * dim - p, p, norm, row + dim - p);
    ScaleRow(dim, dim - p, 1.0f, row);
  }
  ButterflyRow(p, row);
  ScaleRow(0, p, norm, row);
  ScaleRow(p, dim - p, 1.0f, row + p);
}

}  // namespace kvant
