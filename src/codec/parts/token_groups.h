// The fast verbs of uniform groups along channels: one scale and min per token and `group` channels.
//
// Score:      the query is quantised once for all blocks; a group's integer sum is then scaled per token.
// Accumulate: the scale is folded into the weights, once per group of channels; the mins add one constant
//             to all channels of a group.
#pragma once

#include <cstddef>

#include "codec/parts/uniform_groups.h"

namespace kvant::token_groups {

/// Same bytes as ReferenceEncodeGroups, on every SIMD target.
/// REQUIRES, for all: g.axis is this file's, block 64-byte aligned, heads <= kMaxHeads.
Status Encode(const UniformGroups& g, const float* rows, std::byte* block);
Status Decode(const UniformGroups& g, const std::byte* block, float* rows);

/// Bytes of a prepared query per head, a multiple of 64.
size_t PreparedHeadBytes(const UniformGroups& g);
/// queries [heads, dim] -> prepared [heads * PreparedHeadBytes].
void PrepareQuery(const UniformGroups& g, const float* queries, int heads, std::byte* prepared);
/// prepared -> scores [heads, 64].
void Score(const UniformGroups& g, const std::byte* block, const std::byte* prepared, int heads, float* scores);

/// weights [heads, 64] -> adds to acc [heads, dim].
void Accumulate(const UniformGroups& g, const std::byte* block, const float* weights, int heads, float* acc);

}  // namespace kvant::token_groups
