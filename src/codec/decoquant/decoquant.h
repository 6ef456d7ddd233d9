// decoquant: rows in a decomposed basis with low-bit codes. Liu et al., "Unlocking Data-free Low-bit
// Quantization with Matrix Decomposition for KV Cache Compression", ACL 2024 (arXiv:2405.12591).
//
// A block is written as F = T S: the large factor T (one row per token) becomes codes with one scale per
// token, the small factor S is a fixed transform or is fitted to a segment. S never meets the tokens again:
// it is applied to the query before scores, and to the output after them. decoquant.md holds bytes, maths and
// the differences to the paper.
#pragma once

#include <cstddef>

#include "codec/codec.h"
#include "codec/parts/codebook.h"
#include "codec/parts/gain_quantizer.h"
#include "codec/parts/latent_codes.h"
#include "codec/parts/reflectors.h"

namespace kvant::decoquant {

/// How the small factor is made; see decoquant.md "Gauges".
enum class Gauge { kHadamard, kSqrt, kBalanced, kKlt };

/// Blocks over several heads serve only to reproduce the paper, which has one scale per token over all of
/// them.
constexpr int kMaxDim = 1024;
constexpr int kMaxTiles = kMaxDim / kTileChannels;
/// Channels per group that share the small factor when gauge=sqrt.
constexpr int kSqrtFold = 16;
/// Reflectors of the metric, of dim: the strongest directions of a metric decide, and each costs bytes and time. Of the
/// gain of a whole metric, dim / 4 of them give 92 % on keys and 86 % on values of the demo model.
constexpr int MetricReflectors(int dim) { return dim / 4; }

/// Streams of a block: "means" (centred only; F16 [dim]), "scales" (F16 [64]), "codes" (tiles of the widths
/// in force, kTokenLane for keys, kChannelLane for values).
struct State : CodecState {
  using CodecState::CodecState;

  Gauge gauge = Gauge::kHadamard;
  bool centred = false;
  bool weighted = false;  ///< metric=model: rows go through a metric first
  const CodebookSet* books = nullptr;
  ScaleRule rule = ScaleRule::kLeastSquares;
  bool trellis = false;  ///< tiles of up to 4 bits hold symbols of parts/trellis.h
  int num_tiles = 0;
  int total_bits = 0;                    ///< sum of the tiles' widths, whatever the basis
  uint8_t default_bits[kMaxTiles] = {};  ///< widths before the first fit, and of gauges with equal tiles
  size_t means_ofs = 0;
  size_t scales_ofs = 0;
  size_t codes_ofs = 0;

  TileOrder order() const { return TileOrderOf(shape.side); }
  int fold() const { return gauge == Gauge::kSqrt ? kSqrtFold : shape.dim; }
  bool fitted() const { return gauge != Gauge::kHadamard; }
};

inline const State& AsState(const CodecState& state) { return static_cast<const State&>(state); }

/// The linear map of one segment: latents = mix(reflect(weigh(row)) / gain), weigh(row) = metric gain * metric
/// reflect(row), and its inverse. A view of a basis, or of nothing for the built-in map.
struct SegmentMap {
  const uint8_t* bits;                      ///< [num_tiles]
  ReflectorView reflectors;                 ///< applied to each group of reflectors.dim channels; dim 0: none
  const F16* maybe_gains;                   ///< [fold]; null: 1
  bool mix;                                 ///< Hadamard transform of all channels at the end
  ReflectorView metric = {};                ///< dim 0: none
  const F16* maybe_metric_gains = nullptr;  ///< [dim]; null: 1

  float gain(int channel, int fold) const { return maybe_gains ? ToFloat(maybe_gains[channel % fold]) : 1.0f; }
};

/// Bytes of a basis: widths [num_tiles, padded to 16], gains F16 [fold], reflectors (parts/reflectors.h); with a metric
/// its gains F16 [dim] and reflectors.
struct BasisLayout {
  size_t gains_ofs;
  size_t reflectors_ofs;
  size_t metric_gains_ofs;
  size_t metric_ofs;
  size_t bytes;
};
BasisLayout LayoutOfBasis(const State& state);

/// The tiles of a block.
inline LatentCodes CodesOf(const State& state, const SegmentMap& map) {
  return {state.order(), state.books, map.bits, state.num_tiles, state.trellis};
}

/// `basis` may be null.
SegmentMap MapOf(const State& state, const std::byte* basis);
/// The weights of latent channels in a row's scale: gain^2 where latents are uncorrelated coordinates (klt),
/// else none. Fills weights [dim] and returns them, or returns null.
const float* ScaleWeights(const State& state, const SegmentMap& map, float* weights);

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options);
Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis);
Status CheckBasis(const CodecState& state, const std::byte* basis);
Result<DeviceFormat> FormatForDevice(const CodecState& state);

const CodecVerbs* SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::decoquant
