#include <algorithm>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/group_verbs.h"
#include "codec/parts/uniform_kernels.h"

namespace kvant {
namespace {

int NumChannelGroups(const UniformGroups& g) { return g.dim / g.group; }

/// Scales of a level and values of the middle level of one group of channels, [64].
struct GroupOfChannels {
  GroupOfChannels(const UniformGroups& g, const std::byte* block, int index) {
    LoadGroups(g, block, index * kTokensPerPage, kTokensPerPage, scale, min);
    UseLevels(g, kTokensPerPage, scale, min);
  }
  alignas(64) float scale[kTokensPerPage];
  alignas(64) float min[kTokensPerPage];
};

/// The tiles of one group of channels.
TileMatrix GroupTiles(const UniformGroups& g, const std::byte* block, int index, ReadAhead* maybe_ahead) {
  TileMatrix tiles = TilesOf(g, block, maybe_ahead);
  tiles.num_tiles = g.group / kTileChannels;
  tiles.packed += static_cast<size_t>(index * tiles.num_tiles) * TileBytes(g.bits);
  return tiles;
}

/// A prepared query, per group of channels: columns [heads * planes][group], then [groups][heads] of unit, of
/// the sum of the integers, and of the sum of the query itself.
template <typename Byte, typename Column, typename Float, typename Int>
struct PreparedView {
  PreparedView(const UniformGroups& g, int heads, Byte* prepared) {
    const int column_bytes = heads * g.query_planes() * g.dim;
    columns = reinterpret_cast<Column*>(prepared);
    unit = reinterpret_cast<Float*>(prepared + column_bytes);
    query_sum = unit + heads * NumChannelGroups(g);
    offset_sum = reinterpret_cast<Int*>(query_sum + heads * NumChannelGroups(g));
  }
  Column* columns;
  Float* unit;
  Float* query_sum;
  Int* offset_sum;
};
using Prepared = PreparedView<std::byte, int8_t, float, int32_t>;
using PreparedConst = PreparedView<const std::byte, const int8_t, const float, const int32_t>;

Status Encode(const UniformGroups& g, const float* rows, std::byte* block) {
  KVANT_DCHECK(g.axis == GroupAxis::kToken);
  const UniformKernels& kernels = GetUniformKernels();
  alignas(64) uint8_t codes[kTokensPerPage * kMaxGroupDim];
  alignas(64) float min[kMaxGroups], max[kMaxGroups];
  kernels.token_ranges(g.range, rows, g.dim, g.group, min, max);
  kernels.fit(min, max, g.num_groups(), g.top(), g.scales(block), g.has_mins() ? g.mins(block) : nullptr);
  if (!ValidGroupParams(g, block)) return GroupParamsOverflow();
  kernels.quantize_tokens(rows, g.dim, g.group, min, max, g.top(), codes);
  GetTileKernels().pack(g.order, g.tile_bits, g.num_tiles(), codes, g.codes(block));
  return Status::Ok();
}

Status Decode(const UniformGroups& g, const std::byte* block, float* rows) {
  KVANT_DCHECK(g.axis == GroupAxis::kToken);
  if (!ValidGroupParams(g, block)) return GroupParamsCorrupt();
  alignas(64) uint8_t codes[kTokensPerPage * kMaxGroupDim];
  alignas(64) float scale[kMaxGroups], min[kMaxGroups];
  LoadGroups(g, block, 0, g.num_groups(), scale, min);
  GetTileKernels().unpack(g.order, g.tile_bits, g.num_tiles(), g.codes(block), codes);
  GetUniformKernels().dequantize_tokens(codes, g.dim, g.group, scale, min, rows);
  return Status::Ok();
}

size_t PreparedHeadBytes(const UniformGroups& g) {
  const int words = 3 * NumChannelGroups(g);
  return AlignUp(static_cast<size_t>(g.query_planes() * g.dim) + sizeof(float) * static_cast<size_t>(words));
}

void PrepareQuery(const UniformGroups& g, const float* queries, int heads, std::byte* prepared) {
  const FixedPointKernels& fixed = GetFixedPointKernels();
  const Prepared p(g, heads, prepared);
  alignas(64) float ones[kMaxGroupDim];
  std::fill_n(ones, g.group, 1.0f);
  for (int i = 0; i < NumChannelGroups(g); ++i) {
    const float* q = queries + i * g.group;
    fixed.quantize_query(q, static_cast<size_t>(g.dim), heads, g.group, g.query_planes(), nullptr,
                         p.columns + i * heads * g.query_planes() * g.group, p.unit + i * heads,
                         p.offset_sum + i * heads);
    for (int h = 0; h < heads; ++h) p.query_sum[i * heads + h] = fixed.dot(q + h * g.dim, ones, g.group);
  }
}

// q . row = sum over groups of scale * (sum of q (level - center)) + (min + center * scale) * (sum of q), scale that of a
// level
void Score(const UniformGroups& g, const std::byte* block, const std::byte* prepared, int heads, float* scores,
           ReadAhead* maybe_ahead) {
  const PreparedConst p(g, heads, prepared);
  alignas(64) int32_t sums[kMaxHeads * kMaxQueryPlanes * kTokensPerPage];
  alignas(64) float part[kMaxHeads * kTokensPerPage];
  std::fill_n(scores, heads * kTokensPerPage, 0.0f);
  for (int i = 0; i < NumChannelGroups(g); ++i) {
    const GroupOfChannels params(g, block, i);
    GetTileKernels().score(GroupTiles(g, block, i, maybe_ahead), p.columns + i * heads * g.query_planes() * g.group,
                           heads * g.query_planes(), 0, kTokensPerPage, sums);
    GetFixedPointKernels().finish_scores(sums, heads, g.query_planes(), 0, kTokensPerPage, p.unit + i * heads,
                                         p.offset_sum + i * heads, g.center(), params.scale, nullptr, part);
    for (int h = 0; h < heads; ++h) {
      GetUniformKernels().add_scaled(part + h * kTokensPerPage, params.min, p.query_sum[i * heads + h], kTokensPerPage,
                                     scores + h * kTokensPerPage);
    }
  }
}

// sum of w (level * scale + min) = sum of (w * scale) (level - center) + sum of w (min + center * scale), the last the
// same for all channels of a group
void Accumulate(const UniformGroups& g, const std::byte* block, const float* weights, int heads, float* acc,
                ReadAhead* maybe_ahead) {
  const FixedPointKernels& fixed = GetFixedPointKernels();
  alignas(64) int8_t columns[kMaxHeads * 2 * kTokensPerPage];
  float unit[kMaxHeads], quantized_sum[kMaxHeads], min_sum[kMaxHeads];
  for (int i = 0; i < NumChannelGroups(g); ++i) {
    const GroupOfChannels params(g, block, i);
    float* out = acc + i * g.group;
    const int planes =
        fixed.quantize_weights(weights, heads, params.scale, OnePlaneWeight(g.bits), columns, unit, quantized_sum);
    GetTileKernels().accumulate(GroupTiles(g, block, i, maybe_ahead), columns, heads, planes, unit, out,
                                static_cast<size_t>(g.dim));
    fixed.dots(weights, heads, params.min, kTokensPerPage, min_sum);
    for (int h = 0; h < heads; ++h) {
      const float constant = min_sum[h] - static_cast<float>(g.center()) * quantized_sum[h];
      GetUniformKernels().add_constant(constant, g.group, out + h * g.dim);
    }
  }
}

}  // namespace

const GroupVerbs kTokenGroupVerbs = {
    .encode = Encode,
    .decode = Decode,
    .prepared_head_bytes = PreparedHeadBytes,
    .prepare_query = PrepareQuery,
    .score = Score,
    .accumulate = Accumulate,
};

}  // namespace kvant
