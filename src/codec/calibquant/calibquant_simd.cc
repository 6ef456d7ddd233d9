// The fast verbs over the dispatched kernels of parts/: integers against codes, floats once per basis.
#include <algorithm>
#include <cstring>

#include "codec/calibquant/calibquant.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/group_verbs.h"
#include "codec/parts/uniform_codec.h"
#include "codec/parts/uniform_kernels.h"

namespace kvant::calibquant {
namespace {

/// Scales of a level and values of the middle level.
struct LevelChannels : Channels {
  LevelChannels(const SegmentState& s, const std::byte* basis) : Channels(s, basis) {
    UseLevels(s.codes, s.shape.dim, scale, min);
  }
};

/// A prepared query: unit, offset sum and bias of each head, then columns [heads * planes][dim].
template <typename Byte, typename Float, typename Int, typename Column>
struct PreparedView {
  explicit PreparedView(Byte* prepared)
      : unit(reinterpret_cast<Float*>(prepared)),
        bias(unit + kMaxHeads),
        offset_sum(reinterpret_cast<Int*>(bias + kMaxHeads)),
        columns(reinterpret_cast<Column*>(offset_sum + kMaxHeads)) {}
  Float* unit;
  Float* bias;
  Int* offset_sum;
  Column* columns;
};
using Prepared = PreparedView<std::byte, float, int32_t, int8_t>;
using PreparedConst = PreparedView<const std::byte, const float, const int32_t, const int8_t>;

Status EncodeCodes(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  if (!IsSegment(state)) return UniformFastVerbs().encode(state, context, rows, block);
  const SegmentState& s = AsSegment(state);
  const UniformGroups& g = s.codes;
  Channels channels(s, context.basis);
  for (float& scale : channels.scale) scale = scale > 0.0f ? 1.0f / scale : 0.0f;
  std::memset(block, 0, s.layout.block_bytes());
  alignas(64) uint8_t codes[kTokensPerPage * kMaxGroupDim];
  GetUniformKernels().quantize_channels(rows, g.dim, kTokensPerPage, channels.min, channels.scale, g.top(), codes);
  GetTileKernels().pack(g.order, g.tile_bits, g.num_tiles(), codes, g.codes(block));
  return Status::Ok();
}

Status DecodeCodes(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  if (!IsSegment(state)) return UniformFastVerbs().decode(state, context, block, rows);
  const SegmentState& s = AsSegment(state);
  const UniformGroups& g = s.codes;
  const Channels channels(s, context.basis);
  alignas(64) uint8_t codes[kTokensPerPage * kMaxGroupDim];
  GetTileKernels().unpack(g.order, g.tile_bits, g.num_tiles(), g.codes(block), codes);
  GetUniformKernels().dequantize_channels(codes, g.dim, kTokensPerPage, channels.scale, channels.min, rows);
  return Status::Ok();
}

void PrepareInteger(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                    std::byte* prepared) {
  if (!IsSegment(state)) return UniformFastVerbs().prepare_query(state, context, queries, heads, prepared);
  const UniformGroups& g = AsSegment(state).codes;
  const FixedPointKernels& fixed = GetFixedPointKernels();
  const LevelChannels channels(AsSegment(state), context.basis);
  const Prepared p(prepared);
  fixed.quantize_query(queries, static_cast<size_t>(g.dim), heads, g.dim, g.query_planes(), channels.scale, p.columns,
                       p.unit, p.offset_sum);
  fixed.dots(queries, heads, channels.min, g.dim, p.bias);
}

void ScoreCodes(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
                int heads, float* scores) {
  if (!IsSegment(state)) return UniformFastVerbs().score(state, context, block, prepared, heads, scores);
  const UniformGroups& g = AsSegment(state).codes;
  const PreparedConst p(prepared);
  alignas(64) int32_t sums[kMaxHeads * kMaxQueryPlanes * kTokensPerPage];
  GetTileKernels().score(TilesOf(g, block, context.maybe_ahead), p.columns, heads * g.query_planes(), 0, kTokensPerPage,
                         sums);
  GetFixedPointKernels().finish_scores(sums, heads, g.query_planes(), 0, kTokensPerPage, p.unit, p.offset_sum,
                                       g.center(), nullptr, p.bias, scores);
}

void AccumulateLevels(const CodecState& state, const BlockContext& context, const std::byte* block,
                      const float* weights, int heads, float* acc) {
  if (!IsSegment(state)) return UniformFastVerbs().accumulate(state, context, block, weights, heads, acc);
  const UniformGroups& g = AsSegment(state).codes;
  alignas(64) int8_t columns[kMaxHeads * 2 * kTokensPerPage];
  float unit[kMaxHeads], weight_sum[kMaxHeads];
  const int planes = GetFixedPointKernels().quantize_weights(weights, heads, nullptr, OnePlaneWeight(g.bits), columns,
                                                             unit, weight_sum);
  GetTileKernels().accumulate(TilesOf(g, block, context.maybe_ahead), columns, heads, planes, unit, acc,
                              static_cast<size_t>(state.acc_dim));
  for (int h = 0; h < heads; ++h) acc[h * state.acc_dim + g.dim] += weight_sum[h];
}

void FinishLevels(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  if (!IsSegment(state)) return UniformFastVerbs().finish(state, context, acc, heads, out);
  const UniformGroups& g = AsSegment(state).codes;
  Channels channels(AsSegment(state), context.basis);
  for (float& scale : channels.scale) scale *= g.level_step();
  for (int h = 0; h < heads; ++h, acc += state.acc_dim, out += g.dim) {
    std::fill_n(out, g.dim, 0.0f);
    GetUniformKernels().add_products(acc, channels.scale, channels.min, acc[g.dim], g.dim, out);
  }
}

}  // namespace

const CodecVerbs& SimdVerbs() {
  static constexpr CodecVerbs kVerbs = {EncodeCodes, DecodeCodes,      PrepareInteger,
                                        ScoreCodes,  AccumulateLevels, FinishLevels};
  return kVerbs;
}

}  // namespace kvant::calibquant
