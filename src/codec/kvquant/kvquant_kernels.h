// The loops of kvquant, compiled for every SIMD target and resolved once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/kvquant/kvquant.h"

namespace kvant::kvquant {

/// a * b / 2^15, rounded: what vectors have one instruction for.
constexpr int Product15(int a, int b) { return (a * b + (1 << 14)) >> 15; }

/// What keys are dequantised by, in the units of keys of turned_keys.h: first members of all pairs, then second ones;
/// halves times 128 / 127.
struct FixedRanges {
  const int16_t* halves;  ///< [dim], of a tile: from its first pair on
  const int16_t* mids;    ///< [dim]
  int second;             ///< dim / 2: where second members begin
};

/// A row in coded order and how it is normalised.
struct RowToCode {
  const float* values;   ///< [dim]
  const float* mids;     ///< [dim]
  const float* inverse;  ///< [dim]
  int dim;
};

struct Kernels {
  /// One tile of keys: levels out of codes, times ranges, turned by `angles` -> keys [4 quads].
  void (*turn_tile)(int bits, const std::byte* tile, const uint8_t* levels, const FixedRanges& ranges,
                    const int16_t* angles, int16_t* keys);
  /// out = values [count, multiple of 16] * scale, rounded.
  void (*fix)(const float* values, int count, float scale, int16_t* out);
  /// Greatest magnitude of values [count, multiple of 16].
  float (*greatest)(const float* values, int count);
  /// codes [dim], and keys [dim] = |normalised value|.
  void (*code_row)(const RowToCode& row, const float* thresholds, int num_thresholds, uint8_t* codes, float* keys);
  /// Index of the first of `values` [count] from `first` on that is at least `least`; count when there is none.
  int (*find)(const float* values, int first, int count, float least);
  /// values = mids + halves * level of codes.
  void (*decode_row)(const uint8_t* codes, const uint8_t* levels, const float* mids, const float* halves, int dim,
                     float* values);
  /// moments [2]: mean, and 1 / standard deviation (0 when there is none).
  void (*moments)(const float* row, int dim, float* moments);
};

const Kernels& GetKernels();

}  // namespace kvant::kvquant
