// Latent channels as `scale x value(code)`: a run of tiles whose codes come from one family of codebooks, with one
// scale per token. A block is one such run, or several with scales of their own; what maps rows to latents belongs to
// the codec.
//
// The upper half is plain C++ and the definition; the lower half reads a run through the integer kernels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "codec/device_format.h"
#include "codec/parts/codebook.h"
#include "codec/parts/gain_quantizer.h"
#include "codec/parts/strip.h"
#include "codec/parts/tile_kernels.h"
#include "codec/parts/trellis.h"

namespace kvant {

/// How the tiles of a run are read. A view: codebooks and widths belong to a state or to a basis.
struct LatentCodes {
  TileOrder order = TileOrder::kTokenLane;
  const CodebookSet* books = nullptr;
  const uint8_t* bits = nullptr;  ///< [num_tiles], each ValidTileBits
  int num_tiles = 0;
  bool trellis = false;  ///< tiles of up to 4 bits hold symbols of trellis.h

  int channels() const { return num_tiles * kTileChannels; }
  int widest() const { return *std::max_element(bits, bits + num_tiles); }
};

// ---- definition

/// Latent (token, channel) of one tile, in units of the token's scale.
float LatentValue(const LatentCodes& codes, int bits, const std::byte* packed_tile, int token, int channel);

/// Visits (token, channel, value) of all latents that are coded.
template <typename Visit>
void ForEachLatent(const LatentCodes& codes, const std::byte* packed, Visit visit) {
  for (int tile = 0; tile < codes.num_tiles; packed += TileBytes(codes.bits[tile]), ++tile) {
    if (codes.bits[tile] == 0) continue;
    for (int t = 0; t < 64; ++t) {
      for (int c = 0; c < kTileChannels; ++c) {
        visit(t, tile * kTileChannels + c, LatentValue(codes, codes.bits[tile], packed, t, c));
      }
    }
  }
}

/// Adds one token's codes [channels] to tiles whose bytes are zero.
void SetRowCodes(const LatentCodes& codes, int token, const uint8_t* row_codes, std::byte* packed);

/// Kind, levels and thresholds of a run for devices; the caller adds where its streams lie and how rows are mapped. REQUIRES:
/// tiles of one width, at most 4 bits.
DeviceFormat LatentDeviceFormat(const LatentCodes& codes, ScaleRule rule);

// ---- fast verbs; heads <= 16, channels <= kMaxStripDim

/// Prepared queries of a run for `heads` heads: what `score` multiplies codes with.
struct LatentQuery {
  float* unit;      ///< [heads], real value of one step
  int32_t* offset;  ///< [heads], what the centres of the levels add to every sum
  int8_t* operand;  ///< [heads * planes][channels]
  int planes;       ///< 1 or 2, see QueryPlanes

  LatentQuery(std::byte* bytes, int heads, int planes)
      : unit(reinterpret_cast<float*>(bytes)),
        offset(reinterpret_cast<int32_t*>(unit + heads)),
        operand(reinterpret_cast<int8_t*>(offset + heads)),
        planes(planes) {}
};
/// Bytes of a LatentQuery per head, at most; a multiple of 8.
constexpr size_t LatentQueryHeadBytes(int channels) { return 8 + 2 * static_cast<size_t>(channels); }

/// The queries of several runs in memory, one after the other.
class LatentQueries {
 public:
  LatentQueries(std::byte* bytes, int heads) : at_(bytes), heads_(heads) {}
  LatentQuery Next(int channels, int planes) {
    const LatentQuery query(at_, heads_, planes);
    at_ += LatentQueryHeadBytes(channels) * static_cast<size_t>(heads_);
    return query;
  }

 private:
  std::byte* at_;
  int heads_;
};

/// latents [heads, stride] -> query.
void PrepareLatents(const LatentCodes& codes, const float* latents, size_t stride, int heads, const LatentQuery& query);

enum class Store { kSet, kAdd };
/// scores[h][t] = or += sum over channels of query[h] * latent(t), times token_scales [64] (null: 1), plus bias [heads]
/// (null: 0).
void ScoreLatents(const LatentCodes& codes, const std::byte* packed, const float* token_scales,
                  const LatentQuery& query, int heads, const float* bias, Store store, float* scores,
                  ReadAhead* maybe_ahead);

/// acc[h][c] += sum over tokens of weights[h][t] * token_scales[t] * level(t, c), and sums[h * acc_stride] += that sum
/// without the levels: RestoreLatents needs it. weights [heads, 64], acc [heads, acc_stride], token_scales null: 1.
void AccumulateLatents(const LatentCodes& codes, const std::byte* packed, const float* token_scales,
                       const float* weights, int heads, float* acc, size_t acc_stride, float* sums,
                       ReadAhead* maybe_ahead);
/// Accumulated levels [channels][16] (a strip whose rows are heads) -> accumulated latents, in place.
void RestoreLatents(const LatentCodes& codes, const float* sums, size_t sums_stride, int heads, float* strip);

/// Codes [64][channels], symbols where the run has trellis codes -> a packed run.
void PackLatents(const LatentCodes& codes, const uint8_t* unpacked, std::byte* packed);
/// Codes [64][channels] of a packed run; for trellis codes the levels of their windows.
void UnpackLatents(const LatentCodes& codes, const std::byte* packed, uint8_t* out);
/// Unpacked codes of 16 tokens [16][channels] times token_scales [16] -> strip [channels][16].
void LoadLatents(const LatentCodes& codes, const uint8_t* unpacked, const float* token_scales, float* strip);

}  // namespace kvant
