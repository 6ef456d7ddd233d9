// The fast verbs of uniform groups along tokens: one scale and min per channel and `group` tokens (32 or 64).
//
// Score:      the scale is folded into the query, once per group of tokens; the rest is a constant per head.
// Accumulate: the integer sum over a group's tokens is scaled per channel afterwards.
#pragma once

#include <cstddef>

#include "codec/parts/uniform_groups.h"

namespace kvant::channel_groups {

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

}  // namespace kvant::channel_groups
