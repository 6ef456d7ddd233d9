// Scores of keys that are stored before RoPE: keys are turned in 16 bits, once for all query heads, and then meet the
// queries in products of 16-bit pairs.
//
// A page is worked on in chunks of 32 coded channels (pair order: 2j and 2j + 1 are a pair). For consecutive
// positions p0, p0 + 1, ... the queries are turned back by p0 and the keys by 0, 1, ..., 63, which takes one table for
// all pages; for other positions a table is made for the page.
//
//   chunk of keys   int16 [8 quads][2][64 tokens][2]: first members of the quad's two pairs, then second members; the
//                   same places as those of angles (PageAngleIndex)
//   queries         int16 [heads][2][dim / 2]: first members of all pairs, then second members
//
// Keys are scaled so that no pair exceeds kMaxKeyPair, queries to kMaxQueryPair: the sum over the 16 pairs of a chunk
// then fits 32 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "page/rope.h"

namespace kvant {

constexpr int kTurnChannels = 32;
constexpr int kMaxKeyPair = 16000;
constexpr int kMaxQueryPair = 8000;
static_assert(int64_t{kTurnChannels} / 2 * kMaxKeyPair * kMaxQueryPair < (int64_t{1} << 31) * 99 / 100);

constexpr int kTurnChunkValues = kTurnChannels / 4 * kQuadValues;

/// Queries of a run as they are turned for each page: [heads][dim] floats, first members of all pairs and then second
/// members, turned channels times the attention factor; norm [heads] = the largest length of a pair.
void SplitQueries(const Rope& rope, const float* queries, int heads, float* split, float* norm);

struct TurnedKeyKernels {
  /// Split queries, turned back by `position` -> queries, unit[heads] = real value of their 1.
  void (*turn_queries)(const Rope& rope, int32_t position, const float* split, const float* norm, int heads,
                       int16_t* queries, float* unit);
  /// scores[h][t] += unit[h] * (key t . query h) over `quads` quads. `queries` points at the chunk's first pair of head
  /// 0, of a page of `dim` channels. scores [heads, 64].
  void (*dot)(const int16_t* keys, int quads, const int16_t* queries, int dim, int heads, const float* unit,
              float* scores);
};

const TurnedKeyKernels& GetTurnedKeyKernels();

}  // namespace kvant
