// Trellis codes: b bits per value that look back, so that 64 values together are coded better than one by
// one.
//
// A latent channel is one sequence over the 64 tokens of a page. Token t stores a symbol of b bits (1..4) and
// stands for
//
//   value(t) = (level[window(t)] - 128) * step,   window(t) = symbol(t) + symbol(t-1) 2^b + symbol(t-2) 2^2b
//   + ... mod 64
//
// with tokens modulo 64: the sequence is circular, so there is no start state to store and any token decodes
// on its own. Symbols are packed as the codes of an ordinary tile. The levels were trained on N(0,1); they
// are part of the format.
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

/// Window of (token, channel) in a packed tile.
int TrellisWindow(TileOrder order, int bits, const std::byte* packed, int token, int channel);

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

struct TrellisKernels {
  /// TrellisTicks for the 16 rows of a strip: ticks [16][num_tiles * 16], gains [16].
  void (*ticks)(const GainQuantizer& q, const float* strip, int16_t* ticks, float* gains);
  /// TrellisCodes; the same codes to the bit.
  void (*codes)(const GainQuantizer& q, const int16_t* ticks, const float* gains, uint8_t* codes, float* scales);
  /// TrellisExpand.
  void (*expand)(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, std::byte* levels);
};

const TrellisKernels& GetTrellisKernels();

}  // namespace kvant
