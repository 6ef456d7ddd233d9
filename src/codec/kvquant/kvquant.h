// kvquant: keys before RoPE and values, as codes with fitted levels, and 1 % of outliers kept apart. Hooper et al.,
// "KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization", NeurIPS 2024
// (arXiv:2401.18079).
//
// A key channel is normalised by a range that a calibration found, a value token by its own range; one table of
// 2^bits levels per basis serves all of them. kvquant.md holds bytes, maths and the differences to the paper.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/float16.h"
#include "codec/codec.h"
#include "codec/kvquant/outlier_picker.h"
#include "codec/parts/level_fit.h"
#include "codec/parts/tile.h"

namespace kvant::kvquant {

constexpr int kMaxDim = 256;

/// Streams of a block: "codes" (tiles; keys in pair order of the rope, kTokenLane; values kChannelLane), "mids" and
/// "halves" (values only; F16 [64]), "deltas" (F16 [slots]) and "places" (uint16 [slots]).
struct State : CodecState {
  using CodecState::CodecState;

  int bits = 0;
  int slots = 0;                                    ///< outliers of a block, a multiple of 16; always all used
  double outlier_share = 0.0;                       ///< of the values: what the ranges are fitted to leave out
  bool keep_moments = false;                        ///< Q-Norm
  uint8_t tile_bits[kMaxDim / kTileChannels] = {};  ///< `bits` for each
  size_t codes_ofs = 0, mids_ofs = 0, halves_ofs = 0, deltas_ofs = 0, places_ofs = 0;

  bool keys() const { return shape.side == Side::kKey; }
  int num_tiles() const { return shape.dim / kTileChannels; }
  int num_thresholds() const { return (1 << bits) - 1; }
  TileOrder order() const { return TileOrderOf(shape.side); }
  const F16* mids(const std::byte* block) const { return reinterpret_cast<const F16*>(block + mids_ofs); }
  const F16* halves(const std::byte* block) const { return reinterpret_cast<const F16*>(block + halves_ofs); }
  const F16* deltas(const std::byte* block) const { return reinterpret_cast<const F16*>(block + deltas_ofs); }
  const uint16_t* places(const std::byte* block) const { return reinterpret_cast<const uint16_t*>(block + places_ofs); }
};

inline const State& AsState(const CodecState& state) { return static_cast<const State&>(state); }

/// Number of a coded channel and token in a block; outliers are stored in rising order. It is where kernels hold them:
/// keys [dim / 4][2 members of pairs][64 tokens][2 pairs], values [dim][64].
struct Place {
  int channel;
  int token;
};
constexpr int PlaceOf(Side side, int channel, int token) {
  return side == Side::kKey ? PageAngleIndex(channel, token) : channel * kTokensPerPage + token;
}
constexpr Place PlaceAt(Side side, int place) {
  if (side == Side::kValue) return {place / kTokensPerPage, place % kTokensPerPage};
  const int in_quad = place % kQuadValues;
  return {place / kQuadValues * 4 + place % 2 * 2 + in_quad / (kQuadValues / 2), in_quad / 2 % kTokensPerPage};
}

/// A basis: levels uint8 [16], thresholds float [16] (the last unused), and for keys mids and halves F16 [dim] each, in
/// the model's order of channels.
struct BasisView {
  const uint8_t* levels;
  const float* thresholds;
  const F16* mids;
  const F16* halves;

  BasisView(const State& s, const std::byte* basis)
      : levels(reinterpret_cast<const uint8_t*>(basis)),
        thresholds(reinterpret_cast<const float*>(basis + kMaxLevels)),
        mids(reinterpret_cast<const F16*>(thresholds + kMaxLevels)),
        halves(mids + s.shape.dim) {}
  float value(int code) const { return LevelValue(levels[code]); }
};
size_t BasisBytes(const State& s);

/// The range of a value token: that of its values which are no outliers.
struct TokenRange {
  F16 mid;
  F16 half;
  float inverse() const { return half.bits == 0 ? 0.0f : 1.0f / ToFloat(half); }
};
TokenRange RangeOf(float min, float max);

/// Chooses the outliers of values [64, dim]: those farthest from the mean of their token, in standard deviations.
void PickValueOutliers(const State& s, const float* rows, OutlierPicker* picker);
/// Least and greatest value of each token, outliers left out -> ranges [64].
void FitRanges(const State& s, const float* rows, const OutlierPicker& outliers, TokenRange* ranges);
/// Writes ranges, or places and deltas. InvalidArgument: a number does not fit fp16.
Status StoreRanges(const State& s, const TokenRange* ranges, std::byte* block);
Status StoreOutliers(const State& s, const OutlierPicker& outliers, std::byte* block);
/// InvalidArgument: no basis, or no positions for keys.
Status CheckContext(const State& s, const BlockContext& context);
/// Corruption: a number that no encoder writes.
Status CheckBlock(const State& s, const std::byte* block);

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis);
Status CheckBasis(const CodecState& state, const std::byte* basis);

const CodecVerbs* SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::kvquant
