// Float kernels of sign sketches, compiled for every SIMD target and resolved once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace kvant {

/// A product over some of the inner index: out[r][j] += sum over i of rows[r][list[i]] * table[list[i]][j].
/// Outlier channels are left out of one product and make up another, so the index is a list.
struct ListProduct {
  const float* rows;  ///< [num_rows, row_stride]
  size_t row_stride;  ///< in floats
  int num_rows;
  const uint16_t* list;  ///< [list_size], may be empty
  int list_size;
  const float* table;   ///< [.., table_stride]
  size_t table_stride;  ///< in floats
  int columns;          ///< multiple of 16
};

/// The list of a product over the whole of an inner index of up to 256.
inline constexpr auto kEveryIndex = [] {
  std::array<uint16_t, 256> list{};
  for (size_t i = 0; i < list.size(); ++i) list[i] = static_cast<uint16_t>(i);
  return list;
}();

struct SketchKernels {
  /// out [num_rows, out_stride]. A row's sums run in the order of the list, whatever the target; targets
  /// differ in whether they round the products.
  void (*list_product)(const ListProduct& product, float* out, size_t out_stride);
  /// codes[i] = values[i] > 0, for count values (multiple of 16).
  void (*sign_codes)(const float* values, int count, uint8_t* codes);
  /// values[i] = codes[i] ? 1 : -1, for count codes (multiple of 16).
  void (*code_signs)(const uint8_t* codes, int count, float* values);
};

/// For the best SIMD target of this machine (or the one forced with SetSimdTarget).
const SketchKernels& GetSketchKernels();

}  // namespace kvant
