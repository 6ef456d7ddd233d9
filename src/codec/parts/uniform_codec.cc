#include "codec/parts/uniform_codec.h"

#include <algorithm>
#include <cstring>

#include "codec/parts/group_verbs.h"

namespace kvant {
namespace {

const UniformGroups& Groups(const CodecState& state) { return static_cast<const UniformState&>(state).groups; }

/// All padding of a block lies in its last cache line: streams are multiples of 16 bytes, so there is none
/// between.
void ClearPadding(const CodecState& state, std::byte* block) {
  std::memset(block + state.layout.block_bytes() - kAlignment, 0, kAlignment);
}

}  // namespace

// ---- reference

namespace uniform_reference {

Status Encode(const CodecState& state, const BlockContext&, const float* rows, std::byte* block) {
  ClearPadding(state, block);
  return ReferenceEncodeGroups(Groups(state), rows, block);
}

Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows) {
  return ReferenceDecodeGroups(Groups(state), block, rows);
}

void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared) {
  std::copy_n(queries, heads * state.shape.dim, reinterpret_cast<float*>(prepared));
}

void Score(const CodecState& state, const BlockContext&, const std::byte* block, const std::byte* prepared, int heads,
           float* scores) {
  ReferenceScoreGroups(Groups(state), block, reinterpret_cast<const float*>(prepared), heads, scores);
}

void Accumulate(const CodecState& state, const BlockContext&, const std::byte* block, const float* weights, int heads,
                float* acc) {
  ReferenceAccumulateGroups(Groups(state), block, weights, heads, acc);
}

void Finish(const CodecState& state, const BlockContext&, const float* acc, int heads, float* out) {
  std::copy_n(acc, heads * state.acc_dim, out);
}

}  // namespace uniform_reference

// ---- fast

namespace {

const GroupVerbs& OfAxis(const UniformGroups& g) { return GroupVerbsOf(g.axis); }

Status FastEncode(const CodecState& state, const BlockContext&, const float* rows, std::byte* block) {
  ClearPadding(state, block);
  return OfAxis(Groups(state)).encode(Groups(state), rows, block);
}

Status FastDecode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows) {
  return OfAxis(Groups(state)).decode(Groups(state), block, rows);
}

void FastPrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads,
                      std::byte* prepared) {
  OfAxis(Groups(state)).prepare_query(Groups(state), queries, heads, prepared);
}

void FastScore(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
               int heads, float* scores) {
  OfAxis(Groups(state)).score(Groups(state), block, prepared, heads, scores, context.maybe_ahead);
}

void FastAccumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                    int heads, float* acc) {
  OfAxis(Groups(state)).accumulate(Groups(state), block, weights, heads, acc, context.maybe_ahead);
}

}  // namespace

const CodecVerbs& UniformFastVerbs() {
  static constexpr CodecVerbs kVerbs = {FastEncode, FastDecode,     FastPrepareQuery,
                                        FastScore,  FastAccumulate, uniform_reference::Finish};
  return kVerbs;
}

// ---- for devices

Result<DeviceFormat> UniformDeviceFormat(const CodecState& state) {
  const UniformGroups& g = Groups(state);
  const bool key = state.shape.side == Side::kKey;
  if (g.axis != (key ? GroupAxis::kChannel : GroupAxis::kToken) || !g.has_mins()) {
    return Status::NotSupported(StrFormat("uniform codes on a device; accepted: %s, with least values stored",
                                          key ? "axis=channel for keys" : "axis=token for values"));
  }
  const ParamAxis axis = key ? ParamAxis::kChannel : ParamAxis::kToken;
  const int rows = (key ? kTokensPerPage : g.dim) / g.group;
  return DeviceFormat{.kind = CodeKind::kUniform,
                      .bits = g.bits,
                      .codes_byte_ofs = g.codes_byte_ofs,
                      .scales = {axis, rows, g.scales_byte_ofs},
                      .shifts = {axis, rows, g.mins_byte_ofs},
                      .encodable = g.range.rule == RangeRule::kExtremes};
}

// ---- state

Result<std::unique_ptr<CodecState>> MakeUniformState(const BlockShape& shape, GroupAxis axis, int bits, int group,
                                                     const GroupRange& range) {
  if (shape.tokens != kTokensPerPage) {
    return Status::NotSupported(
        StrFormat("uniform groups need blocks of %d tokens, not %d", kTokensPerPage, shape.tokens));
  }
  auto state = std::make_unique<UniformState>(shape);
  const UniformSpec spec = {.axis = axis, .dim = shape.dim, .bits = bits, .group = group, .range = range};
  state->groups = AddUniformGroups(shape.side, spec, state->layout);
  const size_t reference_bytes = sizeof(float) * static_cast<size_t>(shape.dim);  // it keeps the query as it is
  state->prepared_head_bytes = std::max(OfAxis(state->groups).prepared_head_bytes(state->groups), reference_bytes);
  state->acc_dim = shape.dim;
  return std::unique_ptr<CodecState>(std::move(state));
}

}  // namespace kvant
