// Tiles: how codes are stored for CPU kernels. Shared by every codec whose value is code x scale.
//
// A *tile* is 16 channels x 64 tokens = 1,024 codes of `bits` bits (1, 2, 3, 4, 6 or 8; 0: the tile is absent). The
// channels are latent ones: whatever the codec's map produces. A block holds dim / 16 tiles one after the other.
//
// Order. Codes are numbered so that four values that meet in one byte-wise dot product are neighbours:
//   kTokenLane   (keys:   score sums over channels)  index = ((channel / 4) * 64 + token) * 4 + channel % 4
//   kChannelLane (values: accumulate sums over tokens) index = ((token / 4) * 16 + channel) * 4 + token % 4
//
// Planes. A code is split into planes of 1, 2, 4 or 8 bits, low bits first in value but the widest plane first in
// memory: 3 = 2 + 1, 6 = 4 + 2 (the wide plane holds the low bits). A plane of w bits takes 128 w bytes; field f
// (bits w*f .. w*f+w-1) of byte k holds code number f * 128 w + k. So a vector of bytes unpacks by shift and mask into
// vectors of codes in order, whatever the width of a vector.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/codec.h"

namespace kvant {

constexpr int kTileChannels = 16;
constexpr int kTileCodes = kTileChannels * 64;

enum class TileOrder : uint8_t { kTokenLane, kChannelLane };
constexpr TileOrder TileOrderOf(Side side) {
  return side == Side::kKey ? TileOrder::kTokenLane : TileOrder::kChannelLane;
}

constexpr bool ValidTileBits(int bits) {
  return bits == 0 || bits == 1 || bits == 2 || bits == 3 || bits == 4 || bits == 6 || bits == 8;
}

/// Bytes of a tile.
constexpr size_t TileBytes(int bits) { return 128 * static_cast<size_t>(bits); }

/// Width of plane 0 (the low bits), and of plane 1 (0: there is none).
constexpr int TilePlane0Bits(int bits) { return bits == 3 ? 2 : bits == 6 ? 4 : bits; }
constexpr int TilePlane1Bits(int bits) { return bits - TilePlane0Bits(bits); }

/// Number of the code of (token, channel in the tile).
constexpr int TileIndex(TileOrder order, int token, int channel) {
  return order == TileOrder::kTokenLane ? ((channel / 4) * 64 + token) * 4 + channel % 4
                                        : ((token / 4) * kTileChannels + channel) * 4 + token % 4;
}

/// One code of a tile, for scalar code that visits single values. SetTileCode adds to a tile whose bytes are zero.
inline int TileCode(TileOrder order, int bits, const std::byte* packed, int token, int channel) {
  int code = 0;
  for (int plane = 0, shift = 0; shift < bits; ++plane) {
    const int width = plane == 0 ? TilePlane0Bits(bits) : TilePlane1Bits(bits);
    const int bytes = static_cast<int>(TileBytes(width));
    const int index = TileIndex(order, token, channel);
    const int field = static_cast<int>(packed[index % bytes]) >> (index / bytes * width);
    code |= (field & ((1 << width) - 1)) << shift;
    shift += width;
    packed += bytes;
  }
  return code;
}

inline void SetTileCode(TileOrder order, int bits, int token, int channel, int code, std::byte* packed) {
  for (int plane = 0, shift = 0; shift < bits; ++plane) {
    const int width = plane == 0 ? TilePlane0Bits(bits) : TilePlane1Bits(bits);
    const int bytes = static_cast<int>(TileBytes(width));
    const int index = TileIndex(order, token, channel);
    packed[index % bytes] |= static_cast<std::byte>(((code >> shift) & ((1 << width) - 1)) << (index / bytes * width));
    shift += width;
    packed += bytes;
  }
}

/// Packs codes [64 tokens][16 channels] with a row stride of `stride` into TileBytes(bits) bytes.
void PackTile(TileOrder order, int bits, const uint8_t* codes, size_t stride, std::byte* packed);

/// Inverse of PackTile: the definition of the format.
void UnpackTile(TileOrder order, int bits, const std::byte* packed, uint8_t* codes, size_t stride);

}  // namespace kvant
