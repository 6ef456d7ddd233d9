// Random rows for tests of codecs, the same in every run.
#pragma once

#include <cstddef>
#include <random>
#include <span>

#include "base/aligned_buffer.h"
#include "base/float16.h"

namespace kvant {

/// Fills `values` with draws of mean `mean` and variance 1, one after the other.
inline void FillNormal(unsigned seed, std::span<float> values, float mean = 0.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (float& v : values) v = mean + normal(random);
}

/// Normal rows [count, dim].
inline AlignedBuffer<float> NormalRows(int count, int dim, unsigned seed, float mean = 0.0f) {
  AlignedBuffer<float> rows(static_cast<size_t>(count) * static_cast<size_t>(dim));
  FillNormal(seed, rows.span(), mean);
  return rows;
}

/// The same, rounded to fp16, which is all that a cache can hold.
inline AlignedBuffer<float> Fp16NormalRows(int count, int dim, unsigned seed) {
  AlignedBuffer<float> rows = NormalRows(count, dim, seed);
  for (float& v : rows.span()) v = ToFloat(ToF16(v));
  return rows;
}

}  // namespace kvant
