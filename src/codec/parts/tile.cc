#include "codec/parts/tile.h"

#include <cstring>

namespace kvant {
namespace {

void PackPlane(const uint8_t* ordered, int shift, int width, std::byte* packed) {
  const int bytes = 128 * width;
  const int mask = (1 << width) - 1;
  for (int k = 0; k < bytes; ++k) {
    int byte = 0;
    for (int f = 0; f < 8 / width; ++f) byte |= ((ordered[f * bytes + k] >> shift) & mask) << (f * width);
    packed[k] = static_cast<std::byte>(byte);
  }
}

void UnpackPlane(const std::byte* packed, int shift, int width, uint8_t* ordered) {
  const int bytes = 128 * width;
  const int mask = (1 << width) - 1;
  for (int k = 0; k < bytes; ++k) {
    const int byte = static_cast<int>(packed[k]);
    for (int f = 0; f < 8 / width; ++f) {
      ordered[f * bytes + k] = static_cast<uint8_t>(ordered[f * bytes + k] | (((byte >> (f * width)) & mask) << shift));
    }
  }
}

}  // namespace

void PackTile(TileOrder order, int bits, const uint8_t* codes, size_t stride, std::byte* packed) {
  if (bits == 0) return;
  uint8_t ordered[kTileCodes];
  for (int t = 0; t < 64; ++t) {
    for (int c = 0; c < kTileChannels; ++c)
      ordered[TileIndex(order, t, c)] = codes[static_cast<size_t>(t) * stride + c];
  }
  const int w0 = TilePlane0Bits(bits);
  PackPlane(ordered, 0, w0, packed);
  if (w0 < bits) PackPlane(ordered, w0, bits - w0, packed + TileBytes(w0));
}

void UnpackTile(TileOrder order, int bits, const std::byte* packed, uint8_t* codes, size_t stride) {
  uint8_t ordered[kTileCodes];
  std::memset(ordered, 0, sizeof(ordered));
  const int w0 = TilePlane0Bits(bits);
  if (bits > 0) UnpackPlane(packed, 0, w0, ordered);
  if (w0 < bits) UnpackPlane(packed + TileBytes(w0), w0, bits - w0, ordered);
  for (int t = 0; t < 64; ++t) {
    for (int c = 0; c < kTileChannels; ++c)
      codes[static_cast<size_t>(t) * stride + c] = ordered[TileIndex(order, t, c)];
  }
}

}  // namespace kvant
