// cq: coupled channels. A few neighbouring channels of a row share one code, the index of the nearest of 2^bits
// centroids that a calibration has learned. See cq.md for the bytes and for what differs from the paper.
// Paper: Zhang, Yi, Xu, Shrivastava, "KV Cache is 1 Bit Per Channel: Efficient Large Language Model Inference with
// Coupled Quantization", NeurIPS 2024, arXiv:2405.03917.
//
// Centroids lie on a grid of bytes, *levels*, in coordinates in which the squared distance is what an error costs. A
// triangular map per group of channels leads from levels to values; reading applies it to the query and to the output.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/codec.h"

namespace kvant::cq {

constexpr int kMaxDim = 256;
constexpr int kMaxChannels = 8;
constexpr int kMaxBits = 10;
/// Floats of the upper triangle of a group's map.
constexpr int TriangleSize(int channels) { return channels * (channels + 1) / 2; }

/// Streams of a block:
///   codes       [groups][64] u8, the low 8 bits of a code
///   codes_high  [groups][16] u8, bits 8 and 9: those of token t are field t / 16 of byte t % 16; only with bits=10
struct State : CodecState {
  using CodecState::CodecState;

  int channels = 0;  ///< coupled: 2, 4 or 8
  int bits = 0;      ///< of a code: 8 or 10
  size_t codes_ofs = 0;
  size_t high_ofs = 0;

  int groups() const { return shape.dim / channels; }
  int num_codes() const { return 1 << bits; }
  /// Whether the fast score looks products up; see cq_simd.cc.
  bool has_tables() const { return channels > 2; }
};

inline const State& AsState(const CodecState& state) { return static_cast<const State&>(state); }

/// The codebooks of one KV head: a view of a basis, whose bytes are these arrays in this order.
struct Codebooks {
  int dim = 0;
  int channels = 0;
  int bits = 0;
  const float* offsets = nullptr;      ///< [dim]: values of level 0
  const float* maps = nullptr;         ///< [groups][TriangleSize]: upper triangle R, row by row
  const uint8_t* centroids = nullptr;  ///< [dim][2^bits] levels: value = offset + R level

  int groups() const { return dim / channels; }
  int num_codes() const { return 1 << bits; }
};

size_t BasisBytes(int dim, int channels, int bits);
/// REQUIRES: `basis` is not null.
Codebooks ViewBasis(const State& state, const std::byte* basis);

/// The codes of a block.
struct Codes {
  const uint8_t* low = nullptr;   ///< [groups][64]
  const uint8_t* high = nullptr;  ///< [groups][16]; null: 8 bits

  int at(int group, int token) const {
    const int code = low[group * kTokensPerPage + token];
    return high == nullptr ? code : code | ((high[group * 16 + token % 16] >> (token / 16 * 2)) & 3) << 8;
  }
};
Codes CodesOf(const State& state, const std::byte* block);
/// Writes the codes [64] of one group. REQUIRES: the block's bytes are zero.
void StoreCodes(const State& state, int group, const uint16_t* codes, std::byte* block);

// ---- the map of a group

/// R^-1, from values to levels: inverse [groups][TriangleSize] of books.maps. REQUIRES: CheckBasis has passed.
void InvertMaps(const Codebooks& books, float* inverse);
/// out [dim] = R in [dim] in every group, and its transpose; `out` may be `in`.
void ApplyMaps(const Codebooks& books, const float* in, float* out);
void ApplyTransposedMaps(const Codebooks& books, const float* in, float* out);

/// Levels [dim] of a row: R^-1 (row - offset), rounded and cut to 0..255.
void RowLevels(const Codebooks& books, const float* inverse, const float* row, uint8_t* levels);
/// The centroid of `group` nearest to levels [channels]; of equal ones the first.
int NearestCode(const Codebooks& books, int group, const uint8_t* levels);

// ---- the rest of the codec

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis);
Status CheckBasis(const CodecState& state, const std::byte* basis);
/// The error of a codec that was given no basis.
Status NoBasis();

const CodecVerbs* SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::cq
