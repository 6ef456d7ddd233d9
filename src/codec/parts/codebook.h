// Scalar codebooks for values of unit variance: Lloyd-Max and uniform. Computed, not copied: codebook.cc
// solves them.
//
// All are symmetric around zero: code 2^(bits-1) + m is the positive magnitude m, code 2^(bits-1) - 1 - m the
// negative. Tile kernels see a byte, the *level*, which stands for (level - center) * step.
#pragma once

#include <cstdint>

#include "codec/parts/tile_kernels.h"

namespace kvant {

/// Widths that a code may have; 0: the channel is left out.
constexpr int kCodeWidths[] = {0, 1, 2, 3, 4, 6, 8};
constexpr int kMaxCodeWidth = 8;

struct Codebook {
  int bits = 0;
  float step = 0.0f;         ///< value = (level - center) * step
  float center = 0.0f;       ///< a multiple of 1/2
  float thresholds[7] = {};  ///< up to 4 bits: [2^(bits-1) - 1] borders between magnitudes, rising
  float magnitudes[8] = {};  ///< up to 4 bits: [2^(bits-1)] positive values, exactly step * (level - center)
  double distortion = 1.0;   ///< mean square error on N(0,1)
};

/// One family of codebooks, by width.
struct CodebookSet {
  Codebook by_bits[kMaxCodeWidth + 1];  ///< only kCodeWidths are filled; [0] says value 0, distortion 1
  TileLevels levels;
  bool use_levels;  ///< false: level = code for every width

  const TileLevels* levels_or_null() const { return use_levels ? &levels : nullptr; }
};

/// Lloyd-Max codes up to 4 bits, with magnitudes rounded to the 8-bit levels of the tile kernels; uniform
/// above.
const CodebookSet& LloydMaxCodebooks();
/// Uniform mid-rise codes at every width; the step is optimal for N(0,1).
const CodebookSet& UniformCodebooks();
/// Symmetric codes around a level of their own for zero: value = code - 2^(bits-1), the scale is the
/// caller's. The lowest code stays unused, as in the papers that use absmax scales.
const CodebookSet& SymmetricCodebooks();

/// Real value of a code.
float CodeValue(const CodebookSet& set, int bits, int code);
/// Nearest code to a value of unit variance (not for SymmetricCodebooks). REQUIRES: bits > 0
int NearestCode(const Codebook& book, float value);

/// Exact Lloyd-Max solution before rounding: magnitudes [2^(bits-1)], thresholds between them, and the mean
/// square error on N(0,1). bits 1..4.
double SolveLloydMax(int bits, double* magnitudes, double* thresholds);

}  // namespace kvant
