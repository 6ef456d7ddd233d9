// The fast verbs: channel groups and 8-bit tiles of parts/, fed by the kernels of this folder.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "codec/parts/fixed_point.h"
#include "codec/parts/group_verbs.h"
#include "codec/parts/hadamard.h"
#include "codec/parts/tile_kernels.h"
#include "codec/parts/uniform_codec.h"
#include "codec/parts/uniform_kernels.h"
#include "codec/vidkv/vidkv.h"
#include "codec/vidkv/vidkv_kernels.h"

namespace kvant::vidkv {
namespace {

// ---- keys

constexpr ChannelClass kClasses[] = {ChannelClass::kWide, ChannelClass::kRest};

void Transform(const KeyState& s, int count, float* rest) {
  if (s.transform) GetHadamardKernels().forward_rows(s.rest.dim, count, rest);
}

/// Both classes of rows [count, dim], one after the other: [count, wide.dim] and, transformed, [count, rest.dim].
template <int kMaxRows>
struct SplitRows {
  SplitRows(const KeyState& s, const ChannelMask& mask, const float* rows, int count) {
    const Kernels& kernels = GetKernels();
    for (int i = 0; i < count; ++i) {
      kernels.split(mask.words, rows + i * s.shape.dim, s.shape.dim, wide + i * s.wide.dim, rest + i * s.rest.dim);
    }
    Transform(s, count, rest);
  }
  alignas(64) float wide[kMaxRows * kMaxClassDim + kSplitSlack];
  alignas(64) float rest[kMaxRows * kMaxClassDim + kSplitSlack];
};

/// One class of the channels of a page, transformed where it is -> [64, g.dim]: both would not fit the stack.
void GatherRows(const KeyState& s, const ChannelMask& mask, ChannelClass c, const float* rows, float* out) {
  const Kernels& kernels = GetKernels();
  alignas(64) float other[kMaxClassDim + kSplitSlack];
  for (int t = 0; t < kTokensPerPage; ++t, rows += s.shape.dim) {
    float* row = out + t * s.groups(c).dim;
    const bool is_wide = c == ChannelClass::kWide;
    kernels.split(mask.words, rows, s.shape.dim, is_wide ? row : other, is_wide ? other : row);
  }
  if (c == ChannelClass::kRest) Transform(s, kTokensPerPage, out);
}

ChannelMask ChooseWide(const KeyState& s, const float* rows) {
  alignas(64) float min[kMaxDim], max[kMaxDim];
  GetUniformKernels().channel_ranges({}, rows, s.shape.dim, kTokensPerPage, min, max);
  for (int c = 0; c < s.shape.dim; ++c) max[c] -= min[c];
  return WidestChannels(max, s.shape.dim, s.num_wide);
}

Status EncodeKeys(const KeyState& s, const float* rows, std::byte* block) {
  std::memset(block, 0, s.layout.block_bytes());
  const ChannelMask mask = ChooseWide(s, rows);
  StoreMask(s, mask, block);
  alignas(64) float part[kTokensPerPage * kMaxClassDim + kSplitSlack];
  for (const ChannelClass c : kClasses) {
    GatherRows(s, mask, c, rows, part);
    KVANT_TRY(kChannelGroupVerbs.encode(s.groups(c), part, block));
  }
  return Status::Ok();
}

Status DecodeKeys(const KeyState& s, const std::byte* block, float* rows) {
  KVANT_TRY(CheckMask(s, block));
  const ChannelMask mask = LoadMask(s, block);
  alignas(64) float part[kTokensPerPage * kMaxClassDim];
  for (const ChannelClass c : kClasses) {
    const int dim = s.groups(c).dim;
    KVANT_TRY(kChannelGroupVerbs.decode(s.groups(c), block, part));
    if (s.transforms(c)) GetHadamardKernels().inverse_rows(dim, kTokensPerPage, part);
    int channels[kMaxClassDim];
    ListClass(s, mask, c, channels);
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (int i = 0; i < dim; ++i) rows[t * s.shape.dim + channels[i]] = part[t * dim + i];
    }
  }
  return Status::Ok();
}

/// The classes differ from block to block, and so does what a query is split into.
void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const KeyState& s = AsKeys(state);
  const ChannelMask mask = LoadMask(s, block);
  const auto* queries = reinterpret_cast<const float*>(prepared);
  const SplitRows<kMaxHeads> split(s, mask, queries, heads);
  alignas(64) float rest_scores[kMaxHeads * kTokensPerPage];
  kChannelGroupVerbs.score(s.wide, block, reinterpret_cast<const std::byte*>(split.wide), heads, scores,
                           context.maybe_ahead);
  kChannelGroupVerbs.score(s.rest, block, reinterpret_cast<const std::byte*>(split.rest), heads, rest_scores,
                           context.maybe_ahead);
  for (int i = 0; i < heads * kTokensPerPage; ++i) scores[i] += rest_scores[i];
}

// ---- values

/// 8-bit tiles of a block: codes or levels.
struct Tiles {
  static constexpr auto kBits = [] {
    std::array<uint8_t, kMaxDim / kTileChannels> bits{};
    bits.fill(8);
    return bits;
  }();
  TileMatrix matrix(int dim, ReadAhead* maybe_ahead) const {
    return {bytes, kBits.data(), dim / kTileChannels, nullptr, maybe_ahead};
  }
  alignas(64) std::byte bytes[kTokensPerPage * kMaxDim];
};

void EncodeSalient(const ValueState& s, const float* rows, const uint8_t* order, uint8_t* codes, std::byte* block) {
  const int dim = s.shape.dim;
  alignas(64) float inverse[kMaxDim];
  for (int i = 0; i < s.num_salient; ++i) {
    const int stored = s.num_ordinary() + i;
    GetFixedPointKernels().from_f16(s.scales(block) + stored / s.group * dim, dim, inverse);
    for (int c = 0; c < dim; ++c) inverse[c] = inverse[c] > 0.0f ? 1.0f / inverse[c] : 0.0f;
    s.gains(block)[i] = GetKernels().code_salient(rows + order[stored] * dim, inverse, dim, codes + stored * dim);
  }
}

Status EncodeValues(const ValueState& s, const BlockContext& context, const float* rows, std::byte* block) {
  const Kernels& kernels = GetKernels();
  const int dim = s.shape.dim;
  std::memset(block, 0, s.layout.block_bytes());
  float sizes[kTokensPerPage];
  kernels.row_sizes(rows, dim, sizes);
  uint8_t order[kTokensPerPage];
  TokenOrder(StoreSalient(s, context, sizes, block), order);
  alignas(64) uint8_t codes[kTokensPerPage * kMaxDim];
  for (int first = 0; first < s.num_ordinary(); first += s.group) {
    const int count = std::min(s.group, s.num_ordinary() - first);
    kernels.code_trits(rows, dim, order + first, count, s.gamma, s.stretch, s.scales(block) + first / s.group * dim,
                       codes + first * dim);
  }
  if (!CheckValueBlock(s, block).ok()) return ScaleOverflow();
  EncodeSalient(s, rows, order, codes, block);
  Tiles tiles;
  GetTileKernels().pack(TileOrder::kChannelLane, Tiles::kBits.data(), dim / kTileChannels, codes, tiles.bytes);
  kernels.pack(s, tiles.bytes, block);
  return Status::Ok();
}

Status DecodeValues(const ValueState& s, const std::byte* block, float* rows) {
  KVANT_TRY(CheckValueBlock(s, block));
  const int dim = s.shape.dim;
  uint8_t order[kTokensPerPage];
  TokenOrder(LoadSalient(s, block), order);
  Tiles tiles;
  GetKernels().unpack(s, block, tiles.bytes);
  alignas(64) uint8_t levels[kTokensPerPage * kMaxDim];
  GetTileKernels().unpack(TileOrder::kChannelLane, Tiles::kBits.data(), dim / kTileChannels, tiles.bytes, levels);
  alignas(64) float scales[kTokensPerPage / kMinGroup][kMaxDim];
  for (int g = 0; g < kTokensPerPage / s.group; ++g) {
    GetFixedPointKernels().from_f16(s.scales(block) + g * dim, dim, scales[g]);
  }
  for (int i = 0; i < kTokensPerPage; ++i) {
    const int salient = i - s.num_ordinary();
    const float gain = salient >= 0 ? ToFloat(F16{s.gains(block)[salient]}) : 1.0f;
    for (int c = 0; c < dim; ++c) {
      const float level = static_cast<float>(levels[i * dim + c] - kCenter) / kLevelsPerScale;
      rows[order[i] * dim + c] = level * scales[i / s.group][c] * gain;
    }
  }
  return Status::Ok();
}

/// Weights [heads, 64] in the order of stored tokens.
void ReorderWeights(uint64_t salient, const float* weights, int heads, float* stored) {
  const Kernels& kernels = GetKernels();
  for (int h = 0; h < heads; ++h, weights += kTokensPerPage, stored += kTokensPerPage) {
    alignas(64) float set[kMaxSalient + kSplitSlack];
    kernels.split(&salient, weights, kTokensPerPage, set, stored);
    const int num_salient = std::popcount(salient);
    std::copy_n(set, num_salient, stored + kTokensPerPage - num_salient);
  }
}

/// Factors of the stored tokens first..first+group-1: 1, or the gain of a salient one; 0 for all others.
void TokenFactors(const ValueState& s, const std::byte* block, int first, float* factors) {
  for (int i = 0; i < kTokensPerPage; ++i) {
    const int salient = i - s.num_ordinary();
    const bool inside = i >= first && i < first + s.group;
    factors[i] = !inside ? 0.0f : salient >= 0 ? ToFloat(F16{s.gains(block)[salient]}) : 1.0f;
  }
}

// sum of w gain (level - center) scale / 8 = scale / 8 * (sum of w gain level) - 2 scale * (sum of w gain)
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const ValueState& s = AsValues(state);
  const int dim = s.shape.dim;
  Tiles tiles;
  GetKernels().unpack(s, block, tiles.bytes);
  alignas(64) float stored[kMaxHeads * kTokensPerPage + kSplitSlack];
  if (s.num_salient > 0) ReorderWeights(LoadSalient(s, block), weights, heads, stored);
  const float* ordered = s.num_salient > 0 ? stored : weights;
  alignas(64) int8_t columns[kMaxHeads * 2 * kTokensPerPage];
  alignas(64) float partial[kMaxHeads * kMaxDim];
  alignas(64) float scale[kMaxDim], offset[kMaxDim], factors[kTokensPerPage];
  float unit[kMaxHeads], weight_sum[kMaxHeads];
  for (int first = 0; first < kTokensPerPage; first += s.group) {
    TokenFactors(s, block, first, factors);
    const int planes = GetFixedPointKernels().quantize_weights(ordered, heads, factors, OnePlaneWeight(kMostBits),
                                                               columns, unit, weight_sum);
    std::fill_n(partial, heads * dim, 0.0f);
    GetTileKernels().accumulate(tiles.matrix(dim, context.maybe_ahead), columns, heads, planes, unit, partial,
                                static_cast<size_t>(dim));
    GetFixedPointKernels().from_f16(s.scales(block) + first / s.group * dim, dim, scale);
    for (int c = 0; c < dim; ++c) {
      scale[c] *= 1.0f / kLevelsPerScale;
      offset[c] = static_cast<float>(-kCenter) * scale[c];
    }
    for (int h = 0; h < heads; ++h) {
      GetUniformKernels().add_products(partial + h * dim, scale, offset, weight_sum[h], dim, acc + h * dim);
    }
  }
}

// ---- both sides

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  if (state.shape.side == Side::kKey) return EncodeKeys(AsKeys(state), rows, block);
  return EncodeValues(AsValues(state), context, rows, block);
}

Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows) {
  if (state.shape.side == Side::kKey) return DecodeKeys(AsKeys(state), block, rows);
  return DecodeValues(AsValues(state), block, rows);
}

}  // namespace

const CodecVerbs& SimdVerbs() {
  static constexpr CodecVerbs kVerbs = {Encode, Decode,     uniform_reference::PrepareQuery,
                                        Score,  Accumulate, uniform_reference::Finish};
  return kVerbs;
}

}  // namespace kvant::vidkv
