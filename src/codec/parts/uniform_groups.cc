#include "codec/parts/uniform_groups.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "codec/parts/f16_words.h"

namespace kvant {
namespace {

/// The values of one tile: decoding by tiles keeps buffers on the stack small.
struct DecodedTile {
  DecodedTile(const UniformGroups& g, const std::byte* block, int tile) {
    uint8_t codes[kTileCodes];
    UnpackTile(g.order, g.bits, g.codes(block) + static_cast<size_t>(tile) * TileBytes(g.bits), codes, kTileChannels);
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (int c = 0; c < kTileChannels; ++c) {
        const ScaleAndMin group = LoadGroup(g, block, g.GroupIndex(t, tile * kTileChannels + c));
        values[t][c] = codes[t * kTileChannels + c] * group.scale + group.min;
      }
    }
  }
  float values[kTokensPerPage][kTileChannels];
};

/// The values of group `index`, in order of tokens or channels.
void GatherGroup(const UniformGroups& g, const float* rows, int index, float* values) {
  if (g.axis == GroupAxis::kChannel) {
    const float* first = rows + index / g.dim * g.group * g.dim + index % g.dim;
    for (int i = 0; i < g.group; ++i) values[i] = first[i * g.dim];
  } else {
    std::copy_n(rows + index % kTokensPerPage * g.dim + index / kTokensPerPage * g.group, g.group, values);
  }
}

}  // namespace

bool ValidGroup(GroupAxis axis, int dim, int group) {
  const int extent = axis == GroupAxis::kChannel ? kTokensPerPage : dim;
  if (group <= 0 || extent % group != 0 || group % kTileChannels != 0) return false;
  return group >= kMinGroup || (axis == GroupAxis::kToken && group == dim);
}

UniformGroups AddUniformCodes(Side side, const UniformSpec& spec, BlockLayout& layout, std::string_view name) {
  KVANT_DCHECK(ValidGroup(spec.axis, spec.dim, spec.group) && spec.dim <= kMaxGroupDim && ValidTileBits(spec.bits));
  KVANT_DCHECK(spec.range.rule != RangeRule::kQuantile || spec.axis == GroupAxis::kChannel);
  KVANT_DCHECK(spec.range.rule != RangeRule::kSign || spec.bits == 1);
  UniformGroups g{spec};
  g.order = TileOrderOf(side);
  g.codes_byte_ofs = layout.Add(name, StreamKind::kCodes, static_cast<size_t>(g.num_tiles()) * TileBytes(g.bits));
  std::fill_n(g.tile_bits, g.num_tiles(), static_cast<uint8_t>(g.bits));
  return g;
}

UniformGroups AddUniformGroups(Side side, const UniformSpec& spec, BlockLayout& layout,
                               const UniformStreamNames& names) {
  UniformGroups g = AddUniformCodes(side, spec, layout, names.codes);
  const size_t params_bytes = sizeof(F16) * static_cast<size_t>(g.num_groups());
  g.scales_byte_ofs = layout.Add(names.scales, StreamKind::kScales, params_bytes);
  if (g.has_mins()) g.mins_byte_ofs = layout.Add(names.mins, StreamKind::kMeans, params_bytes);
  return g;
}

// ---- one group, one value

GroupParams FitGroup(float min, float max, int bits) {
  GroupParams p;
  p.min = ToF16(min + 0.0f);  // turns -0 into +0; which of them min() returns is not defined
  p.min_value = ToFloat(p.min);
  p.scale = ToF16(std::max(max - p.min_value, 0.0f) / static_cast<float>((1 << bits) - 1) + 0.0f);
  const float scale = ToFloat(p.scale);
  p.inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  return p;
}

GroupParams FitSymmetricGroup(float max, int bits) {
  const float half_levels = 0.5f * static_cast<float>((1 << bits) - 1);
  GroupParams p;
  p.scale = ToF16(max / half_levels);
  const float scale = ToFloat(p.scale);
  p.min_value = -half_levels * scale;
  p.inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  return p;
}

ScaleAndMin LoadGroup(const UniformGroups& g, const std::byte* block, int index) {
  const float scale = ToFloat(F16{g.scales(block)[index]});
  return {scale, g.has_mins() ? ToFloat(F16{g.mins(block)[index]}) : -0.5f * static_cast<float>(g.top()) * scale};
}

void LoadGroups(const UniformGroups& g, const std::byte* block, int first, int count, float* scale, float* min) {
  GetFixedPointKernels().from_f16(g.scales(block) + first, count, scale);
  if (g.has_mins()) return GetFixedPointKernels().from_f16(g.mins(block) + first, count, min);
  for (int i = 0; i < count; ++i) min[i] = -0.5f * static_cast<float>(g.top()) * scale[i];
}

uint8_t EncodeUniform(const GroupParams& params, int top, float value) {
  const float step = (value - params.min_value) * params.inverse;
  return static_cast<uint8_t>(std::nearbyint(std::clamp(step, 0.0f, static_cast<float>(top))));
}

// ---- verbs of the reference

Status ReferenceEncodeGroups(const UniformGroups& g, const float* rows, std::byte* block) {
  GroupParams params[kMaxGroups];
  for (int i = 0; i < g.num_groups(); ++i) {
    float values[kMaxGroupDim];
    GatherGroup(g, rows, i, values);
    const RangeEnds ends = FindRange(g.range, g.sum_order(), values, g.group);
    params[i] = g.has_mins() ? FitGroup(ends.low, ends.high, g.bits) : FitSymmetricGroup(ends.high, g.bits);
    g.scales(block)[i] = params[i].scale.bits;
    if (g.has_mins()) g.mins(block)[i] = params[i].min.bits;
  }
  if (!ValidGroupParams(g, block)) return GroupParamsOverflow();
  for (int tile = 0; tile < g.num_tiles(); ++tile) {
    uint8_t codes[kTileCodes];
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (int i = 0; i < kTileChannels; ++i) {
        const int c = tile * kTileChannels + i;
        codes[t * kTileChannels + i] = EncodeUniform(params[g.GroupIndex(t, c)], g.top(), rows[t * g.dim + c]);
      }
    }
    PackTile(g.order, g.bits, codes, kTileChannels, g.codes(block) + static_cast<size_t>(tile) * TileBytes(g.bits));
  }
  return Status::Ok();
}

Status ReferenceDecodeGroups(const UniformGroups& g, const std::byte* block, float* rows) {
  if (!ValidGroupParams(g, block)) return GroupParamsCorrupt();
  for (int tile = 0; tile < g.num_tiles(); ++tile) {
    const DecodedTile decoded(g, block, tile);
    for (int t = 0; t < kTokensPerPage; ++t) {
      std::copy_n(decoded.values[t], kTileChannels, rows + t * g.dim + tile * kTileChannels);
    }
  }
  return Status::Ok();
}

void ReferenceScoreGroups(const UniformGroups& g, const std::byte* block, const float* queries, int heads,
                          float* scores) {
  std::fill_n(scores, heads * kTokensPerPage, 0.0f);
  for (int tile = 0; tile < g.num_tiles(); ++tile) {
    const DecodedTile decoded(g, block, tile);
    for (int h = 0; h < heads; ++h) {
      const float* q = queries + h * g.dim + tile * kTileChannels;
      for (int t = 0; t < kTokensPerPage; ++t) {
        for (int c = 0; c < kTileChannels; ++c) scores[h * kTokensPerPage + t] += q[c] * decoded.values[t][c];
      }
    }
  }
}

void ReferenceAccumulateGroups(const UniformGroups& g, const std::byte* block, const float* weights, int heads,
                               float* acc) {
  for (int tile = 0; tile < g.num_tiles(); ++tile) {
    const DecodedTile decoded(g, block, tile);
    for (int h = 0; h < heads; ++h) {
      float* out = acc + h * g.dim + tile * kTileChannels;
      for (int t = 0; t < kTokensPerPage; ++t) {
        for (int c = 0; c < kTileChannels; ++c) out[c] += weights[h * kTokensPerPage + t] * decoded.values[t][c];
      }
    }
  }
}

bool ValidGroupParams(const UniformGroups& g, const std::byte* block) {
  bool valid = true;
  for (int i = 0; i < g.num_groups(); ++i) {
    valid &= IsScaleWord(g.scales(block)[i]);
    if (g.has_mins()) valid &= IsFiniteWord(g.mins(block)[i]);
  }
  return valid;
}

Status GroupParamsOverflow() {
  return Status::InvalidArgument("uniform groups: the least value or the step of a group does not fit fp16");
}

Status GroupParamsCorrupt() {
  return Status::Corruption("uniform groups: a scale is negative or not finite, or a min is not finite");
}

}  // namespace kvant
