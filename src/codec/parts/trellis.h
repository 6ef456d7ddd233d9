// Trellis codes: b bits per value that look back, so that 64 values together are coded better than one by
// one.
//
// A latent channel is one sequence over the 64 tokens of a page. Place s of it stores a symbol of b bits (1..4) and
// stands for
//
//   value(s) = (level[window(s)] - 128) * step,   window(s) = symbol(s) + symbol(s-1) 2^b + symbol(s-2) 2^2b
//   + ... mod 64
//
// with places modulo 64: the sequence is circular, so there is no start state to store and any token decodes on its own.
// The levels were trained on N(0,1); they are part of the format.
//
// Order. Windows of neighbouring places are neighbouring bits of a *run*: 8 successive symbols of a channel, the newest
// lowest, 8 b bits. A vector that holds run i of several channels gives, shifted by 2 b m, values of two places each. These
// shall be tokens that are neighbours in the tiles of kernels, so place 8 i + 2 m + e (e < 2) is token 16 m + 2 i + e.
//
// Packing. A tile has four parts of 32 runs:
//   kTokenLane     part = channel / 4, its run 4 i + channel % 4
//   kChannelLane   part = i / 2,       its run 2 channel + i % 2
// Two parts take 64 b bytes: for each of them, b / 2 times the next 16 bits of its runs, the lowest first, as little-endian
// words; then, if b is odd, the last 8 bits of runs, byte 2 r from run r of the first part, byte 2 r + 1 from that of the second.
//
// Squared error on N(0,1): 0.296, 0.0825, 0.0239, 0.0068 for 1..4 bits, where the best scalar codes have
// 0.363, 0.1175, 0.0345, 0.0095 and no code of any kind can be below 0.25, 0.0625, 0.0156, 0.0039. Widths 6
// and 8 stay scalar.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/parts/gain_quantizer.h"
#include "codec/parts/tile.h"

namespace kvant {

constexpr int kTrellisWindows = 64;
constexpr int kMaxTrellisBits = 4;

/// Level of each window by width; value = (level - 128) * step of TrellisCodebooks().by_bits[bits].
const uint8_t* TrellisLevels(int bits);

/// Step, centre and distortion by width: trellis up to 4 bits, uniform above. No thresholds; levels are bytes
/// of their own (use_levels is false).
const CodebookSet& TrellisCodebooks();

constexpr int TrellisToken(int place) { return place % 8 / 2 * 16 + place / 8 * 2 + place % 2; }
constexpr int TrellisPlace(int token) { return token % 16 / 2 * 8 + token / 16 * 2 + token % 2; }

/// Window of (token, channel) in a packed tile; its last `bits` bits are the symbol.
int TrellisWindow(TileOrder order, int bits, const std::byte* packed, int token, int channel);

/// Adds a symbol to a tile whose bytes are zero.
void SetTrellisSymbol(TileOrder order, int bits, int token, int channel, int symbol, std::byte* packed);

/// Codes [64][num_tiles * 16] -> tiles; those wider than 4 bits as in tile.h.
void TrellisPack(TileOrder order, const uint8_t* bits, int num_tiles, const uint8_t* codes, std::byte* packed);

/// Encoding rounds values to ticks, so that the search for the best path is exact in integers and the same
/// everywhere. Ticks per step: fine enough to cost less than 0.1 % of the error, coarse enough for costs of
/// 64 tokens in 32 bits.
constexpr int TrellisTicksPerStep(int bits) { return bits <= kMaxTrellisBits ? 4 : 64; }
/// Values beyond so many steps are cut; the largest level is 128 steps from the middle.
constexpr int kMaxTrellisSteps = 160;

/// Encoding has two parts, because a code needs the whole page. First each row is divided by its gain (the
/// root of its mean square over coded channels) and rounded to ticks. REQUIRES: q.books is
/// &TrellisCodebooks()
void TrellisTicks(const GainQuantizer& q, const float* row, int16_t* ticks, float* gain);

/// Then ticks [64][num_tiles * 16] become codes [64][num_tiles * 16] and scales [64] (not rounded). All of
/// it but the scales is integer arithmetic.
void TrellisCodes(const GainQuantizer& q, const int16_t* ticks, const float* gains, uint8_t* codes, float* scales);

/// Packed tiles -> tiles of 8 bits that the tile kernels read, one after the other: [present tiles][1024]
/// levels in the order of the codes. Absent tiles stay absent; tiles wider than 4 bits get their codes as
/// levels.
void TrellisExpand(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, std::byte* levels);

/// What encoding needs, for the best SIMD target.
struct TrellisKernels {
  /// TrellisTicks for the 16 rows of a strip: ticks [16][num_tiles * 16], gains [16].
  void (*ticks)(const GainQuantizer& q, const float* strip, int16_t* ticks, float* gains);
  /// TrellisCodes; the same codes to the bit.
  void (*codes)(const GainQuantizer& q, const int16_t* ticks, const float* gains, uint8_t* codes, float* scales);
};

const TrellisKernels& GetTrellisKernels();

/// TrellisExpand for the best SIMD target.
using TrellisExpander = void (*)(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed,
                                 std::byte* levels);
TrellisExpander GetTrellisExpander();

}  // namespace kvant
