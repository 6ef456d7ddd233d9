// The loops of vidkv, compiled for every SIMD target. Bytes are equal on all of them.
#pragma once

#include <cstdint>

#include "codec/vidkv/vidkv.h"

namespace kvant::vidkv {

/// Entries are written by whole vectors: this many floats behind the last may be overwritten.
constexpr int kSplitSlack = 16;

struct Kernels {
  /// The entries of a row [count] whose bit in `mask` is set -> `set`, the others -> `clear`, both in order and with up to
  /// kSplitSlack more floats behind them. count is a multiple of 16; they are written by turns, so neither may lie in the
  /// other's slack.
  void (*split)(const uint64_t* mask, const float* row, int count, float* set, float* clear);

  // ---- values: encode

  /// Sum of magnitudes of each row [64, dim].
  void (*row_sizes)(const float* rows, int dim, float* sizes);
  /// The tokens order[0..count-1] of rows [64, dim] -> fp16 scales [dim] and trits [count][dim].
  void (*code_trits)(const float* rows, int dim, const uint8_t* order, int count, float gamma, float stretch,
                     uint16_t* scales, uint8_t* trits);
  /// One row over `inverse` scales [dim] -> 2-bit codes [dim]; returns the gain, fp16.
  uint16_t (*code_salient)(const float* row, const float* inverse, int dim, uint8_t* codes);
  /// Codes as 8-bit tiles -> both streams of quads.
  void (*pack)(const ValueState& state, const std::byte* tiles, std::byte* block);

  // ---- values: read

  /// Both streams of quads -> levels as 8-bit tiles.
  void (*unpack)(const ValueState& state, const std::byte* block, std::byte* tiles);
};

const Kernels& GetKernels();

}  // namespace kvant::vidkv
