// Strips: 16 rows side by side, so that a SIMD lane is a row.
//
// A strip is [dim][16] floats: value c of row r stands at c * 16 + r. Linear maps along a row become plain
// loops over whole vectors, for every width of a vector and every dim. Rows are tokens when a block is
// encoded, and query heads when a map is applied to queries or outputs.
#pragma once

#include <cstddef>

namespace kvant {

constexpr int kStripRows = 16;
/// Largest head size that verbs on the stack allow for: a strip is 16 KiB then.
constexpr int kMaxStripDim = 256;

/// Memory of a strip.
struct Strip {
  alignas(64) float values[kMaxStripDim * kStripRows];
};

/// Rows [count, dim] with a stride in floats -> strip; rows from `count` to 16 become zero.
inline void LoadStrip(const float* rows, size_t stride, int count, int dim, float* strip) {
  for (int r = 0; r < kStripRows; ++r) {
    const float* row = rows + static_cast<size_t>(r) * stride;
    for (int c = 0; c < dim; ++c) strip[c * kStripRows + r] = r < count ? row[c] : 0.0f;
  }
}

/// Strip -> the first `count` rows [count, dim].
inline void StoreStrip(const float* strip, int count, int dim, size_t stride, float* rows) {
  for (int r = 0; r < count; ++r) {
    float* row = rows + static_cast<size_t>(r) * stride;
    for (int c = 0; c < dim; ++c) row[c] = strip[c * kStripRows + r];
  }
}

}  // namespace kvant
