// lowrank: rows as quantised codes plus a product of low rank. See lowrank.md. Paper: Guo, Greengard, Xing, Kim,
// "LQ-LoRA: Low-rank plus Quantized Matrix Decomposition for Efficient Language Model Finetuning", arXiv:2311.12023,
// whose decomposition of weights is applied to the cache.
//
//   row ~ mean + L1 L2 + Q
//
// L2 (a few directions) and the mean are the basis of a segment, L1 is a few coarse numbers per token, Q has
// NormalFloat codes with scales that are themselves quantised. Reading costs no product of size dim per token for the
// low-rank part: q . (L1 L2) = (q L2^T) . L1.
#pragma once

#include <cstddef>

#include "base/float16.h"
#include "codec/codec.h"
#include "codec/parts/latent_codes.h"
#include "codec/parts/table_codebook.h"

namespace kvant::lowrank {

/// Channels that share a scale (B0 of the paper). All scales of a block share the second level: 256 of them at head
/// size 256, as in the paper.
constexpr int kGroupChannels = 64;
constexpr int kMaxGroups = kMaxStripDim / kGroupChannels;
/// One tile of digits; directions beyond it would cost more than a bit of every code.
constexpr int kMaxRank = 16;

/// Streams of a block:
///   codes         [dim / 16] tiles, kTokenLane for keys, kChannelLane for values
///   factors       one tile: the digits of L1, see State::digits; rank > 0 only
///   scale_codes   [groups][64] u8
///   scale_params  F16 [2]: smallest scale, and step; scale = smallest + code * step
struct State : CodecState {
  using CodecState::CodecState;

  const TableCodebook* table = nullptr;
  CodebookSet books;                                     ///< the table, for who reads tiles
  uint8_t tile_bits[kMaxStripDim / kTileChannels] = {};  ///< width of the codes, for each tile
  bool rotated = false;
  int rounds = 0;
  int rank = 0;
  int factor_bits = 0;
  /// A factor of factor_bits bits is stored as `digits` channels of a tile, the lowest digit first; so 4, 8 and 16
  /// factors all fill one tile.
  int digits = 0;
  uint8_t digit_bits = 0;
  CodebookSet digit_books;
  size_t codes_ofs = 0;
  size_t factors_ofs = 0;
  size_t scale_codes_ofs = 0;
  size_t scale_params_ofs = 0;

  TileOrder order() const { return TileOrderOf(shape.side); }
  int num_groups() const { return (shape.dim + kGroupChannels - 1) / kGroupChannels; }
  int group_first(int group) const { return group * kGroupChannels; }
  int group_channels(int group) const { return std::min(kGroupChannels, shape.dim - group_first(group)); }
  /// Where the tiles of a group start in `codes`.
  size_t group_ofs(int group) const {
    return codes_ofs + TileBytes(tile_bits[0]) * static_cast<size_t>(group_first(group) / kTileChannels);
  }

  LatentCodes codes(int group) const {
    return {order(), &books, tile_bits, group_channels(group) / kTileChannels, false};
  }
  LatentCodes factors() const { return {order(), &digit_books, &digit_bits, 1, false}; }
};

inline const State& AsState(const CodecState& state) { return static_cast<const State&>(state); }

/// A basis: mean F16 [dim], steps float [rank], directions i8 [rank][dim], padded to a multiple of 64.
struct Factors {
  const F16* mean = nullptr;
  const float* steps = nullptr;
  const int8_t* directions = nullptr;

  bool present() const { return mean != nullptr; }
};
/// `maybe_basis` null: no low-rank part. Then factors are 0 and mean nothing.
Factors FactorsOf(const State& state, const std::byte* maybe_basis);
size_t BasisBytes(const State& state);

/// out [dim]: the direction of factor j times its step.
void LoadDirection(const State& state, const Factors& factors, int j, float* out);
/// The same for digit k of factor j, at 16 digits per token: out [16][dim].
void LoadDigitTable(const State& state, const Factors& factors, float* out);

// ---- what encoding a page chooses; codes follow from it

struct PageChoice {
  uint8_t factors[kTokensPerPage * kMaxRank] = {};  ///< [64][rank]
  uint8_t scale_codes[kMaxGroups * kTokensPerPage] = {};
  F16 scale_params[2];

  float scale(int group, int token) const {
    return ToFloat(scale_params[0]) +
           static_cast<float>(scale_codes[group * kTokensPerPage + token]) * ToFloat(scale_params[1]);
  }
};

/// Quantises the largest magnitudes [groups][64] of the residual. InvalidArgument: they do not fit fp16.
Status FitScales(const State& state, const float* largest, PageChoice* choice);

/// The factor of a coordinate (row . direction) / (direction . direction), in steps.
uint8_t FactorCode(const State& state, float coordinate);

/// One step of the alternation over rows [64, dim]: factors for the rows less the codes that `maybe_from` implies (null:
/// none), and the largest magnitudes [groups][64] of what these factors leave. Returns the squared error of `maybe_from`.
using RefineFunction = double (*)(const State& state, const Factors& factors, const float* rows,
                                  const PageChoice* maybe_from, uint8_t* new_factors, float* largest);
/// The best of 1 + rounds choices.
Result<PageChoice> ChoosePage(const State& state, const Factors& factors, const float* rows, RefineFunction refine);

/// Writes everything of a choice but the codes.
void StoreChoice(const State& state, const PageChoice& choice, std::byte* block);
/// Corruption unless the second-level scales are finite and not negative.
Status CheckBlock(const State& state, const std::byte* block);
/// Scales [64] of a group.
void LoadScales(const State& state, const std::byte* block, int group, float* scales);

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis);
Status CheckBasis(const CodecState& state, const std::byte* basis);
Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options);

const CodecVerbs* SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::lowrank
