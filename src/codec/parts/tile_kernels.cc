#include "codec/parts/tile_kernels.h"

#include "codec/parts/tile_kernels_impl.h"

namespace kvant {
namespace {

// One tile's levels as [token][channel].
void TileLevelsOf(const TileMatrix& m, TileOrder order, int tile, const std::byte* packed, uint8_t* levels) {
  const int bits = m.bits[tile];
  UnpackTile(order, bits, packed, levels, kTileChannels);
  if (m.levels == nullptr || bits > 4) return;
  for (int i = 0; i < kTileCodes; ++i) levels[i] = m.levels->by_bits[bits][levels[i]];
}

void Score(const TileMatrix& m, const int8_t* q, int columns, int first_token, int last_token, int32_t* sums) {
  uint8_t levels[kTileCodes];
  for (int col = 0; col < columns; ++col) {
    for (int t = first_token; t < last_token; ++t) sums[col * 64 + t] = 0;
  }
  const std::byte* packed = m.packed;
  for (int tile = 0; tile < m.num_tiles; packed += TileBytes(m.bits[tile]), ++tile) {
    if (m.bits[tile] == 0) continue;
    TileLevelsOf(m, TileOrder::kTokenLane, tile, packed, levels);
    for (int col = 0; col < columns; ++col) {
      const int8_t* column = q + (col * m.num_tiles + tile) * kTileChannels;
      for (int t = first_token; t < last_token; ++t) {
        for (int c = 0; c < kTileChannels; ++c) sums[col * 64 + t] += levels[t * kTileChannels + c] * column[c];
      }
    }
  }
}

void Accumulate(const TileMatrix& m, const int8_t* w, int heads, int planes, const float* scale, float* acc,
                size_t acc_stride) {
  uint8_t levels[kTileCodes];
  const std::byte* packed = m.packed;
  for (int tile = 0; tile < m.num_tiles; packed += TileBytes(m.bits[tile]), ++tile) {
    if (m.bits[tile] == 0) continue;
    TileLevelsOf(m, TileOrder::kChannelLane, tile, packed, levels);
    for (int h = 0; h < heads; ++h) {
      const int8_t* hi = w + h * 128;
      float* out = acc + static_cast<size_t>(h) * acc_stride + tile * kTileChannels;
      for (int c = 0; c < kTileChannels; ++c) {
        int32_t sum = 0;
        for (int t = 0; t < 64; ++t) {
          const int weight = hi[t] * 128 + (planes == 2 ? hi[64 + t] : 0);
          sum += levels[t * kTileChannels + c] * weight;
        }
        out[c] += scale[h] * static_cast<float>(sum);
      }
    }
  }
}

void Pack(TileOrder order, const uint8_t* bits, int num_tiles, const uint8_t* codes, std::byte* packed) {
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    PackTile(order, bits[tile], codes + tile * kTileChannels, static_cast<size_t>(num_tiles) * kTileChannels, packed);
  }
}

void Unpack(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, uint8_t* codes) {
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    UnpackTile(order, bits[tile], packed, codes + tile * kTileChannels, static_cast<size_t>(num_tiles) * kTileChannels);
  }
}

}  // namespace

const TileKernels& ReferenceTileKernels() {
  static constexpr TileKernels kKernels = {false, Score, Accumulate, Pack, Unpack};
  return kKernels;
}

TileKernels GetTileKernels() {
  const TileReaders readers = GetTileReaders();
  const TilePackers packers = GetTilePackers();
  return {readers.reads_trellis, readers.score, GetTileAccumulate(), packers.pack, packers.unpack};
}

}  // namespace kvant
