// Where the signs of a sketched key lie in a device block, and what else sketches need in device memory.
//
// Kernels multiply signs with mma.m16n8k256 of single bits: A is 16 tokens x 256 directions, B bit planes. Lane (g, t) holds
// of A four words: register r = token g + 8 (r % 2), its word r / 2 of 32 bits. Of a *chunk* of 256 directions, lane t takes
// those with i % 8 = 2t or 2t + 1, in order: 64 bits, so that a product of 8 directions leaves with each lane (C of
// mma.m16n8k16) the two that it owns.
//
// A real factor of the signs is 12-bit integers (kSketchPlanes), cut into bit planes that are the columns of B. Planes go in
// pairs, *digits*: a digit of a chunk is four words of a lane, two of the higher plane and two of the lower one.
#pragma once

#include <cstddef>

#include "cuda/fragment_order.h"

namespace kvant::cuda {

constexpr int kSketchChunk = 256;
constexpr int kSketchPlanes = 12;  ///< 11 bits and a sign: 5e-4 of a score's RMS; with 10 it would be 2e-3
constexpr float kSketchTop = static_cast<float>((1 << (kSketchPlanes - 1)) - 1);
constexpr int kSketchDigits = kSketchPlanes / 2;

/// Chunks of a sketch, of which the last may be half.
KVANT_HD constexpr int SketchChunks(int bits) { return (bits + kSketchChunk - 1) / kSketchChunk; }
/// Words of a lane per chunk. REQUIRES: bits is 128 or a multiple of 256.
KVANT_HD constexpr int SignWords(int bits) { return bits < kSketchChunk ? 2 : 4; }
KVANT_HD constexpr int SignWord(int bits, int unit, int chunk, int lane, int reg) {
  return ((unit * SketchChunks(bits) + chunk) * kLanes + lane) * SignWords(bits) + reg;
}

/// Word and bit of a sign in its stream.
struct SignPlace {
  int word;
  int bit;
};
KVANT_HD constexpr SignPlace SignOf(int bits, int token, int direction) {
  const int place = direction % kSketchChunk / 8 * 2 + direction % 2;
  const int lane = token % 8 * 4 + direction % 8 / 2;
  return {SignWord(bits, token / kUnitTokens, direction / kSketchChunk, lane, token % kUnitTokens / 8 + place / 32 * 2),
          place % 32};
}

/// Index of a digit's four words for a lane among those of a B operand.
KVANT_HD constexpr int DigitVector(int chunk, int digit, int lane) {
  return (chunk * kSketchDigits + digit) * kLanes + lane;
}

/// The matrix S [512, dim] in device memory, made by MakeSketchTables:
///   high     halves of S, tiles of 8 directions, each in the order of queries (QueryHalf)
///   low      what fp16 rounded off, again as halves
///   columns  digits of S by channel: words [2 chunks][dim][4 lanes t][6 digits][4]
///   terms    of each channel four floats, see SketchTerm
constexpr int kSketchRows = 512;
struct SketchTableLayout {
  int dim;

  KVANT_HD constexpr int tile_bytes() const { return 16 * dim; }
  KVANT_HD constexpr int low_byte_ofs() const { return kSketchRows / 8 * tile_bytes(); }
  KVANT_HD constexpr int columns_byte_ofs() const { return 2 * low_byte_ofs(); }
  KVANT_HD constexpr int ColumnByteOfs(int chunk, int channel, int t) const {
    return columns_byte_ofs() + ((chunk * dim + channel) * 4 + t) * kSketchDigits * 16;
  }
  KVANT_HD constexpr int terms_byte_ofs() const { return ColumnByteOfs(2, 0, 0); }
  KVANT_HD constexpr int bytes() const { return terms_byte_ofs() + 16 * dim; }
};

/// As EstimatorScale of codec/parts/sketch.h.
KVANT_HD constexpr float EstimatorFactor(int bits) { return 1.2533141373155003f / static_cast<float>(bits); }

/// A sum of bits times integers n comes as the float 1.5 * 2^23 + sum, its bits those of the integer sum from kFloatBits.
constexpr int kFloatBits = 0x4B400000;
constexpr float kFloatZero = 12582912.0f;

/// Turns that float into unit * sum of signs times n: factor * x + offset. `sum`: of all n.
struct SketchTerm {
  float factor;
  float offset;

  KVANT_HD static constexpr SketchTerm Of(float unit, float sum) {
    return {2.0f * unit, -unit * (sum + 2.0f * kFloatZero)};
  }
};
/// Float of a channel's terms that has the offset for a sketch of 128, 256 or 512 bits; the factor is the first.
KVANT_HD constexpr int TermOffset(int bits) { return bits == 128 ? 1 : bits == 256 ? 2 : 3; }

}  // namespace kvant::cuda
