// turboquant: rows turned by a random rotation, then scalar Lloyd-Max codes with one norm per token. See
// turboquant.md. Papers: Zandieh, Daliri, Hadian, Mirrokni, "TurboQuant: Online Vector Quantization with Near-optimal
// Distortion Rate", arXiv:2504.19874; TurboESM, arXiv:2603.26110 (its rotation and codebook are fitted to data).
//
// The rotation never meets the tokens again: queries are turned before scores, outputs are turned back. Channels may
// form two classes with a rotation, a width and a norm of their own (2.5 and 3.5 bits), and keys may keep the signs of
// a random projection of what the codes lost.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "codec/codec.h"
#include "codec/parts/gain_quantizer.h"
#include "codec/parts/latent_codes.h"
#include "codec/parts/reflectors.h"
#include "codec/parts/sketch.h"
#include "codec/parts/table_codebook.h"

namespace kvant::turboquant {

enum class Rotation { kHadamard, kDense, kSvd, kNone };
enum class Residual { kNone, kGaussian, kOrthogonal, kSign };

/// Seed of dense rotations: another one than kSketchSeed, because the signs of a residual say nothing new along the
/// directions that its codes were made in.
constexpr uint64_t kRotationSeed = 0x5451;

/// Channels that share a rotation, a width and a scale per token. Latent channels of the classes follow one another.
struct ChannelClass {
  int first = 0;  ///< latent channel
  int num_tiles = 0;
  uint8_t bits[kMaxStripDim / kTileChannels] = {};  ///< the same for all tiles
  size_t scales_ofs = 0;                            ///< without meaning when the codebook is calibrated
  size_t codes_ofs = 0;
  std::shared_ptr<const Sketch> dense;  ///< kDense: the rotation times sqrt(channels)

  int channels() const { return num_tiles * kTileChannels; }
};

/// Streams of a block: "means" (centred only), per class "scales" (not with a calibrated codebook) and "codes", then
/// "residual_signs" and "residual_norms" (kGaussian and kOrthogonal only).
struct State : CodecState {
  using CodecState::CodecState;

  Rotation rotation = Rotation::kHadamard;
  Residual residual = Residual::kNone;
  ScaleRule rule = ScaleRule::kUnbiased;
  bool centred = false;
  bool calibrated = false;  ///< the basis holds the codebook
  int table_bits = 0;       ///< calibrated: width of its codes, the sign of the residual included
  int num_classes = 1;      ///< 0: all bits belong to the residual
  ChannelClass classes[2];
  size_t means_ofs = 0;
  size_t signs_ofs = 0;
  size_t norms_ofs = 0;
  std::shared_ptr<const Sketch> sketch;  ///< of residuals: kGaussian, kOrthogonal

  TileOrder order() const { return TileOrderOf(shape.side); }
  bool sketched() const { return sketch != nullptr; }
  std::span<const ChannelClass> used_classes() const { return {classes, static_cast<size_t>(num_classes)}; }
};

inline const State& AsState(const CodecState& state) { return static_cast<const State&>(state); }

/// Bytes of a basis, in this order, each at a multiple of 16; `bytes` 0: there is none.
///   outliers    [channels of class 0] u8, ascending: which channels they are. With two classes.
///   table       TableCodebook. With a calibrated codebook.
///   reflectors  parts/reflectors.h. With rotation=svd.
struct BasisLayout {
  size_t table_ofs = 0;
  size_t reflectors_ofs = 0;
  size_t bytes = 0;
};
BasisLayout LayoutOfBasis(const State& state);

/// What a basis says; without one, the built-in map: outliers are the first channels.
class SegmentView {
 public:
  SegmentView(const State& state, const std::byte* maybe_basis);

  LatentCodes codes(const ChannelClass& part) const {
    return {state_.order(), books_ ? &*books_ : &LloydMaxCodebooks(), part.bits, part.num_tiles, false};
  }
  /// The signs of residuals as a run of latents: +1 and -1.
  LatentCodes signs() const;
  const TableCodebook& table() const { return *table_; }
  const ReflectorView& reflectors() const { return reflectors_; }
  /// order [dim]: the channel that stands at each latent before rotation.
  void ChannelOrder(uint8_t* order) const;

 private:
  const State& state_;
  const uint8_t* outliers_ = nullptr;
  const TableCodebook* table_ = nullptr;
  ReflectorView reflectors_;
  std::optional<CodebookSet> books_;  ///< of a calibrated table
};

/// Scale of every token of a class [64], as stored.
void TokenScales(const State& state, const ChannelClass& part, const std::byte* block, float* scales);
/// What a residual's signs are multiplied with, per token [64].
void ResidualScales(const State& state, const std::byte* block, float* scales);
/// InvalidArgument where the codec needs a calibration and the block has none.
Status CheckContext(const State& state, const BlockContext& context);
/// Corruption unless means and scales are what an encoder writes.
Status CheckBlock(const State& state, const std::byte* block);

/// A state for `shape` around any sketch of residuals: tests of the estimator draw one per seed. `options` as in
/// scheme text, with residual=gaussian or orthogonal.
Result<std::unique_ptr<CodecState>> MakeState(const BlockShape& shape, const CodecOptions& options,
                                              std::shared_ptr<const Sketch> maybe_sketch);
Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options);

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis);
Status CheckBasis(const CodecState& state, const std::byte* basis);

Result<DeviceFormat> FormatForDevice(const CodecState& state);

const CodecVerbs* SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::turboquant
