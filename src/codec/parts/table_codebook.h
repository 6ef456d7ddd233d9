// Codebooks given as a sorted table of values: NormalFloat, and tables fitted to data. For tables symmetric around
// zero that serve rows of unit variance see codebook.h.
#pragma once

#include <cstdint>
#include <span>

#include "codec/parts/codebook.h"

namespace kvant {

constexpr int kMaxTableEntries = 16;

/// 2^bits values, rounded to the byte levels of the tile kernels: value(code) = (level - 128) * step.
struct TableCodebook {
  int bits = 0;
  float step = 0.0f;
  uint8_t levels[kMaxTableEntries] = {};
  /// [2^bits - 1], rising: a value's code is the number of thresholds below it.
  float thresholds[kMaxTableEntries - 1] = {};

  int entries() const { return 1 << bits; }
  float value(int code) const { return static_cast<float>(levels[code] - kCenter) * step; }
  static constexpr int kCenter = 128;
};

/// Values rounded to multiples of (largest magnitude) / 127, with thresholds half-way between neighbours.
/// REQUIRES: values rising, 2, 4, 8 or 16 of them.
TableCodebook MakeTable(std::span<const float> values);
/// The same with thresholds [values - 1] of the caller's, rising; values may then come in any order.
TableCodebook MakeTable(std::span<const float> values, std::span<const float> thresholds);

/// NormalFloat: normal quantiles between -1 and 1 with an exact zero. bits 2..4. Dettmers et al., arXiv:2305.14314, with
/// the outermost quantile 0.9677083.
const TableCodebook& NormalFloat(int bits);
/// 2^bits values from -1 to 1 at equal distances. bits 2..4.
const TableCodebook& UniformTable(int bits);

/// The table as a family that has no other width, for whoever reads tiles.
CodebookSet AsCodebookSet(const TableCodebook& table);

/// Number of thresholds below the value.
int TableCode(const TableCodebook& table, float value);

struct TableKernels {
  /// codes[i] = TableCode(values[i] * factor), and units[i] = their values; count a multiple of 16. Same on every target.
  void (*quantize)(const TableCodebook& table, const float* values, int count, float factor, uint8_t* codes,
                   float* units);
  /// Largest |values[i]|; count a multiple of 16.
  float (*largest)(const float* values, int count);
};

/// For the best SIMD target of this machine (or the one forced with SetSimdTarget).
const TableKernels& GetTableKernels();

}  // namespace kvant
