// The fast verbs of uniform groups, one table per axis.
//
//                 channel_groups.cc                              token_groups.cc
//   scale, min    per channel and `group` tokens (32 or 64)      per token and `group` channels
//   score         the scale is folded into the query, once per   the query is quantised once for all blocks; a group's
//                 group of tokens; the rest is a constant per    integer sum is then scaled per token
//                 head
//   accumulate    the integer sum over a group's tokens is       the scale is folded into the weights, once per group of
//                 scaled per channel afterwards                  channels; the mins add one constant to its channels
#pragma once

#include <cstddef>

#include "codec/parts/tile_kernels.h"
#include "codec/parts/uniform_groups.h"

namespace kvant {

/// REQUIRES, for all: g.axis is the table's, block 64-byte aligned, heads <= kMaxHeads.
struct GroupVerbs {
  /// Same bytes as ReferenceEncodeGroups, on every SIMD target.
  Status (*encode)(const UniformGroups& g, const float* rows, std::byte* block);
  Status (*decode)(const UniformGroups& g, const std::byte* block, float* rows);

  /// Bytes of a prepared query per head, a multiple of 64.
  size_t (*prepared_head_bytes)(const UniformGroups& g);
  /// queries [heads, dim] -> prepared [heads * prepared_head_bytes].
  void (*prepare_query)(const UniformGroups& g, const float* queries, int heads, std::byte* prepared);
  /// prepared -> scores [heads, 64].
  void (*score)(const UniformGroups& g, const std::byte* block, const std::byte* prepared, int heads, float* scores,
                ReadAhead* maybe_ahead);
  /// weights [heads, 64] -> adds to acc [heads, dim].
  void (*accumulate)(const UniformGroups& g, const std::byte* block, const float* weights, int heads, float* acc,
                     ReadAhead* maybe_ahead);
};

extern const GroupVerbs kChannelGroupVerbs;
extern const GroupVerbs kTokenGroupVerbs;

inline const GroupVerbs& GroupVerbsOf(GroupAxis axis) {
  return axis == GroupAxis::kChannel ? kChannelGroupVerbs : kTokenGroupVerbs;
}

/// Scales and mins [count] of values as those of levels about 0: value = (level - center) * scale + min. Levels about 0
/// keep the rounding of an 8-bit query, and of 7-bit weights, from adding up.
inline void UseLevels(const UniformGroups& g, int count, float* scale, float* min) {
  for (int i = 0; i < count; ++i) {
    scale[i] *= g.level_step();
    min[i] += static_cast<float>(g.center()) * scale[i];
  }
}

/// The codes of a block.
inline TileMatrix TilesOf(const UniformGroups& g, const std::byte* block, ReadAhead* maybe_ahead) {
  return {.packed = g.codes(block),
          .bits = g.tile_bits,
          .num_tiles = g.num_tiles(),
          .levels = g.levels(),
          .maybe_ahead = maybe_ahead};
}

}  // namespace kvant
