// Integer kernels over tiles, compiled for every SIMD target and resolved once.
//
// Both are the same primitive, an unsigned byte times a signed byte summed by fours: keys meet the query in it,
// values meet the softmax weights. Results are exact integers, so every target gives the same.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/parts/tile.h"
#include "page/read_ahead.h"

namespace kvant {

/// Levels that codes stand for, by bit width: level = by_bits[bits][code], for widths 1..4. Wider codes are their
/// own level. The u8 level is an affine image of the real one; the codec folds slope and offset into its scales.
struct TileLevels {
  alignas(64) uint8_t by_bits[5][16];
};

/// Consecutive tiles of one block.
struct TileMatrix {
  const std::byte* packed;
  const uint8_t* bits;  ///< [num_tiles], each ValidTileBits
  int num_tiles;
  const TileLevels* levels;  ///< null: level = code
  ReadAhead* maybe_ahead = nullptr;
  bool trellis = false;  ///< tiles of up to 4 bits hold symbols of trellis.h; REQUIRES: TileKernels::reads_trellis
};

struct TileKernels {
  /// Whether score and accumulate take tiles of a trellis. Where not, expanding a block first is faster.
  bool reads_trellis;

  /// sums[col][t] = sum over channels of level(t, c) * q[col][c], for tokens first..last-1 (multiples of 32).
  /// `q` is [columns][num_tiles * 16]; `sums` [columns][64], overwritten in the token range only.
  /// A column is a query head, or one of two planes of it (see fixed_point.h).
  void (*score)(const TileMatrix& m, const int8_t* q, int columns, int first_token, int last_token, int32_t* sums);

  /// acc[h][c] += scale[h] * sum over tokens of level(t, c) * w[h][t], with w = hi * 128 + lo.
  /// `w` is [heads][2 planes][64 tokens], bytes 0..127: hi, then lo; planes = 1 leaves lo out (and scale still counts
  /// hi * 128). `acc` has `acc_stride` floats per head; its element 0 is channel 0 of tile 0.
  void (*accumulate)(const TileMatrix& m, const int8_t* w, int heads, int planes, const float* scale, float* acc,
                     size_t acc_stride);

  /// PackTile / UnpackTile for all tiles: codes [64][num_tiles * 16], one byte each.
  void (*pack)(TileOrder order, const uint8_t* bits, int num_tiles, const uint8_t* codes, std::byte* packed);
  void (*unpack)(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, uint8_t* codes);
};

/// For the best SIMD target of this machine (or the one forced with SetSimdTarget). Cheap, but not free: once per block.
TileKernels GetTileKernels();

/// Plain C++: what the SIMD targets are tested against.
const TileKernels& ReferenceTileKernels();

}  // namespace kvant
