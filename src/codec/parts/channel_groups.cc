#include <algorithm>

#include "base/check.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/group_verbs.h"
#include "codec/parts/uniform_kernels.h"

namespace kvant {
namespace {

/// Scales and mins of one group of tokens as floats, [dim].
struct GroupOfTokens {
  GroupOfTokens(const UniformGroups& g, const std::byte* block, int first_token) {
    LoadGroups(g, block, first_token / g.group * g.dim, g.dim, scale, min);
  }
  alignas(64) float scale[kMaxGroupDim];
  alignas(64) float min[kMaxGroupDim];
};

/// 1 for the tokens first..first+count-1, 0 for the others: [64].
struct TokenMask {
  TokenMask(int first, int count) { std::fill_n(value + first, count, 1.0f); }
  alignas(64) float value[kTokensPerPage] = {};
};

Status Encode(const UniformGroups& g, const float* rows, std::byte* block) {
  KVANT_DCHECK(g.axis == GroupAxis::kChannel);
  const UniformKernels& kernels = GetUniformKernels();
  alignas(64) uint8_t codes[kTokensPerPage * kMaxGroupDim];
  for (int t = 0; t < kTokensPerPage; t += g.group) {
    const int first = t / g.group * g.dim;
    const float* tokens = rows + t * g.dim;
    alignas(64) float min[kMaxGroupDim], max[kMaxGroupDim];
    kernels.channel_ranges(g.range, tokens, g.dim, g.group, min, max);
    kernels.fit(min, max, g.dim, g.top(), g.scales(block) + first, g.has_mins() ? g.mins(block) + first : nullptr);
    kernels.quantize_channels(tokens, g.dim, g.group, min, max, g.top(), codes + t * g.dim);
  }
  if (!ValidGroupParams(g, block)) return GroupParamsOverflow();
  GetTileKernels().pack(g.order, g.tile_bits, g.num_tiles(), codes, g.codes(block));
  return Status::Ok();
}

Status Decode(const UniformGroups& g, const std::byte* block, float* rows) {
  KVANT_DCHECK(g.axis == GroupAxis::kChannel);
  if (!ValidGroupParams(g, block)) return GroupParamsCorrupt();
  alignas(64) uint8_t codes[kTokensPerPage * kMaxGroupDim];
  GetTileKernels().unpack(g.order, g.tile_bits, g.num_tiles(), g.codes(block), codes);
  for (int t = 0; t < kTokensPerPage; t += g.group) {
    const GroupOfTokens params(g, block, t);
    GetUniformKernels().dequantize_channels(codes + t * g.dim, g.dim, g.group, params.scale, params.min,
                                            rows + t * g.dim);
  }
  return Status::Ok();
}

// The query stays in floats: it meets other scales in each group, so it is quantised there.

size_t PreparedHeadBytes(const UniformGroups& g) { return sizeof(float) * static_cast<size_t>(g.dim); }

void PrepareQuery(const UniformGroups& g, const float* queries, int heads, std::byte* prepared) {
  std::copy_n(queries, heads * g.dim, reinterpret_cast<float*>(prepared));
}

// q . row = sum of (q * scale) (level - center) + q . (min + center * scale), scale that of a level.
void Score(const UniformGroups& g, const std::byte* block, const std::byte* prepared, int heads, float* scores,
           ReadAhead* maybe_ahead) {
  const FixedPointKernels& fixed = GetFixedPointKernels();
  const auto* queries = reinterpret_cast<const float*>(prepared);
  alignas(64) int8_t columns[kMaxHeads * kMaxQueryPlanes * kMaxGroupDim];
  alignas(64) int32_t sums[kMaxHeads * kMaxQueryPlanes * kTokensPerPage];
  float unit[kMaxHeads], bias[kMaxHeads];
  int32_t offset_sum[kMaxHeads];
  for (int t = 0; t < kTokensPerPage; t += g.group) {
    GroupOfTokens params(g, block, t);
    UseLevels(g, g.dim, params.scale, params.min);
    fixed.quantize_query(queries, static_cast<size_t>(g.dim), heads, g.dim, g.query_planes(), params.scale, columns,
                         unit, offset_sum);
    fixed.dots(queries, heads, params.min, g.dim, bias);
    GetTileKernels().score(TilesOf(g, block, maybe_ahead), columns, heads * g.query_planes(), t, t + g.group, sums);
    fixed.finish_scores(sums, heads, g.query_planes(), t, t + g.group, unit, offset_sum, g.center(), nullptr, bias,
                        scores);
  }
}

// sum of w (level * scale + min) = scale * (sum of w level) + min * (sum of w), per group of tokens
void Accumulate(const UniformGroups& g, const std::byte* block, const float* weights, int heads, float* acc,
                ReadAhead* maybe_ahead) {
  alignas(64) int8_t columns[kMaxHeads * 2 * kTokensPerPage];
  alignas(64) float partial[kMaxHeads * kMaxGroupDim];
  float unit[kMaxHeads], weight_sum[kMaxHeads];
  for (int t = 0; t < kTokensPerPage; t += g.group) {
    GroupOfTokens params(g, block, t);
    for (float& scale : params.scale) scale *= g.level_step();
    const TokenMask mask(t, g.group);  // the kernel sums over the whole page
    const int planes = GetFixedPointKernels().quantize_weights(weights, heads, mask.value, OnePlaneWeight(g.bits),
                                                               columns, unit, weight_sum);
    std::fill_n(partial, heads * g.dim, 0.0f);
    GetTileKernels().accumulate(TilesOf(g, block, maybe_ahead), columns, heads, planes, unit, partial,
                                static_cast<size_t>(g.dim));
    for (int h = 0; h < heads; ++h) {
      GetUniformKernels().add_products(partial + h * g.dim, params.scale, params.min, weight_sum[h], g.dim,
                                       acc + h * g.dim);
    }
  }
}

}  // namespace

const GroupVerbs kChannelGroupVerbs = {
    .encode = Encode,
    .decode = Decode,
    .prepared_head_bytes = PreparedHeadBytes,
    .prepare_query = PrepareQuery,
    .score = Score,
    .accumulate = Accumulate,
};

}  // namespace kvant
