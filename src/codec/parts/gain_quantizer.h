// Rows as gain x shape: a row is divided by its own size, its values get codes of a codebook, and one scale
// per row brings them back. Tiles of 16 channels may have different widths.
#pragma once

#include <cstdint>

#include "codec/parts/codebook.h"

namespace kvant {

/// Rows smaller than this are zero: nothing in fp16 comes near, and its inverse is still finite.
constexpr float kLeastRowGain = 1e-30f;

/// How the scale of a row follows from its values y and its codes c (both weighted).
enum class ScaleRule {
  kLeastSquares,  ///< y.c / c.c: the smallest error
  kUnbiased,      ///< y.y / y.c: the row's product with itself is kept, so scores do not shrink
  kNorm,          ///< the gain alone, as if codes had unit variance: rows shrink by the codebook's distortion
  kSameNorm,      ///< |y| / |c|: the decoded row is as long as the row
  kAbsMax,        ///< max |y| / (2^(bits-1) - 1), codes by rounding; for SymmetricCodebooks, one width in all tiles
};

/// What to do with a row of num_tiles * 16 values. Plain references; the caller owns everything.
struct GainQuantizer {
  const CodebookSet* books;
  const uint8_t* bits;  ///< [num_tiles], of kCodeWidths
  int num_tiles;
  const float* maybe_weights;  ///< [num_tiles * 16] weight of a channel's squared error in the scale; null: 1
  ScaleRule rule;
};

/// Root of the mean square of a row over its coded channels; 0 when there is none.
float RowGain(const GainQuantizer& q, const float* row);

/// One row -> codes [num_tiles * 16] (0 where a tile is absent) and scale: value = scale * CodeValue. scale
/// >= 0 and not rounded. The definition; kernels differ from it where a sum rounds differently just at a
/// threshold.
void QuantizeRow(const GainQuantizer& q, const float* row, uint8_t* codes, float* scale);

struct GainQuantizerKernels {
  /// The 16 rows of a strip [num_tiles * 16][16] (strip.h) -> codes [16][num_tiles * 16], scales [16].
  void (*quantize)(const GainQuantizer& q, const float* strip, uint8_t* codes, float* scales);
};

const GainQuantizerKernels& GetGainQuantizerKernels();

}  // namespace kvant
