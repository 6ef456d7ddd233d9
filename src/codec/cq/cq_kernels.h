// The loops of cq, compiled for every SIMD target and resolved once.
#pragma once

#include <cstdint>

#include "codec/cq/cq.h"
#include "codec/parts/strip.h"
#include "codec/parts/tile.h"

namespace kvant::cq {

/// Scores of one query head by code: base + step * sum over groups of factor * entry. Each group has a step of its own,
/// a whole multiple of one that all share: where ranges differ, as those of keys do, one step for all would leave the
/// narrow groups no resolution.
struct ScoreTable {
  uint8_t* entries;   ///< [groups][2^bits]
  uint16_t* factors;  ///< [groups], at least 1; their sum is at most kFactorSum
  float step;
  float base;
};
/// So that a sum over groups fits 16 bits.
constexpr int kFactorSum = 0xFFFF / 0xFF;

/// Sets factors and step for groups whose products span `ranges` [groups].
void ChooseFactors(int groups, const float* ranges, ScoreTable* table);

struct Kernels {
  /// RowLevels of the 16 rows of a strip, in tile order kTokenLane: level (t, c) at (c / 4 * 64 + t) * 4 + c % 4 of
  /// `levels`, for tokens first_token .. first_token + 15.
  void (*quantize)(const Codebooks& books, const float* inverse, const float* strip, int first_token, uint8_t* levels);
  /// NearestCode of `group` for the 64 rows of levels [dim / 4][64][4]; codes [64]. The same on every target.
  void (*search)(const Codebooks& books, int group, const uint8_t* levels, uint16_t* codes);
  /// Codes -> levels of the centroids, as tiles of 8 bits that the tile kernels read: [dim / 16][1024].
  void (*expand)(const Codebooks& books, TileOrder order, const Codes& codes, uint8_t* levels);
  /// Products of mapped queries [heads, dim] with all centroids -> tables [heads]. `scratch` [heads][groups << bits].
  void (*fill_tables)(const Codebooks& books, const float* queries, int heads, float* scratch, ScoreTable* tables);
  /// scores [heads, 64] from a table per head.
  void (*score)(const Codebooks& books, const Codes& codes, const ScoreTable* tables, int heads, float* scores);
};

const Kernels& GetKernels();
/// The same in plain C++.
const Kernels& PlainKernels();

}  // namespace kvant::cq
