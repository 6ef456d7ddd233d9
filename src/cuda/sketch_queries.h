// Queries for sketched keys: S q of a tile's columns, as bit planes. All warps of a block share the work, by stretches of 32
// directions.
#pragma once

#include "cuda/block_readers.h"
#include "cuda/prepare_merge_warp.h"
#include "cuda/sketch_order.h"

namespace kvant::cuda {

/// What readers need beside the planes.
struct SketchHeader {
  float factor[kTileColumns];  ///< SketchTerm of each column, times sqrt(pi / 2) / m
  float offset[kTileColumns];
  const std::byte* tables;
  /// Four or fewer columns of the tile are two columns of an operand each: the lower half of the planes and the upper one.
  int32_t halves;
};

/// Sealed queries of a tile for a sketch of kBits: header, planes, and room while they are made.
template <class W, int kDim, int kBits>
struct SketchQueries {
  static constexpr int kChunks = SketchChunks(kBits);
  static constexpr int kStretches = kBits / 32;
  static constexpr int kPlanesByteOfs = 128;
  static constexpr int kFloatsByteOfs = kPlanesByteOfs + kChunks * kSketchDigits * kLanes * 16;
  static constexpr int kMaximaByteOfs = kFloatsByteOfs + kStretches * kLanes * 32;
  static constexpr int kBytes = kMaximaByteOfs + kStretches * kTileColumns * 4;
  static_assert(sizeof(SketchHeader) <= kPlanesByteOfs && kBits % kSketchChunk == 0);

  /// `queries`: of the tile; those as they are have been stored, and a BlockSync has followed. One more follows here.
  KVANT_HD static void Map(const std::byte* tables, int columns, int warp, int warps, int lane, std::byte* queries) {
    std::byte* sealed = queries + PlainQueryBytes(kDim);
    for (int i = warp; i < kStretches; i += warps) Project(tables, queries, i, lane, sealed);
    W::BlockSync();
    const int halves = columns <= kTileColumns / 2 ? 2 : 1;
    for (int i = warp; i < kStretches; i += warps) StorePlanes(i, halves, lane, sealed);
    if (warp == warps - 1) StoreHeader(tables, halves, lane, sealed);
    W::BlockSync();
  }

 private:
  static constexpr float kTop = static_cast<float>((1 << (kSketchPlanes - 1)) - 1);

  /// What a lane has of a stretch: column lane / 4, directions 2t and 2t + 1 of its four tiles.
  struct alignas(16) Values {
    float value[8];
  };
  KVANT_HD static Values* ValuesOf(std::byte* sealed, int stretch, int lane) {
    return reinterpret_cast<Values*>(sealed + kFloatsByteOfs) + stretch * kLanes + lane;
  }

  KVANT_HD static void Project(const std::byte* tables, const std::byte* plain, int stretch, int lane,
                               std::byte* sealed) {
    constexpr SketchTableLayout kLayout = {kDim};
    ChannelWords<kDim> query;
    query.LoadQuery(plain, lane);
    Values mine;
    float max = 0.0f;
    KVANT_UNROLL
    for (int tile = 0; tile < 4; ++tile) {
      ChannelWords<kDim> directions;
      directions.LoadQuery(tables + (stretch * 4 + tile) * kLayout.tile_bytes(), lane);
      float c[4] = {};
      KVANT_UNROLL
      for (int s = 0; s < kDim / kStepChannels; ++s) {
        const uint32_t a[4] = {query.word[2 * s], 0, query.word[2 * s + 1], 0};
        StepProduct<W>(c, a, &directions.word[2 * s]);
      }
      KVANT_UNROLL
      for (int i = 0; i < 2; ++i) {
        mine.value[2 * tile + i] = c[i];
        max = W::Max(max, W::Max(c[i], -c[i]));
      }
    }
    *ValuesOf(sealed, stretch, lane) = mine;
    KVANT_UNROLL
    for (int mask = 1; mask < 4; mask *= 2) max = W::Max(max, W::ShuffleXor(max, mask));
    if (lane % 4 == 0) {
      reinterpret_cast<float*>(sealed + kMaximaByteOfs)[stretch * kTileColumns + lane / 4] = max;
    }
  }

  /// The greatest value of the lane's column is kTop units.
  KVANT_HD static float Greatest(const std::byte* sealed, int lane) {
    const float* maxima = reinterpret_cast<const float*>(sealed + kMaximaByteOfs) + lane / 4;
    float max = 0.0f;
    KVANT_UNROLL
    for (int i = 0; i < kStretches; ++i) max = W::Max(max, maxima[i * kTileColumns]);
    return max;
  }
  KVANT_HD static float Integer(float value, float inverse) { return W::Round(value * inverse); }

  /// The stretch's byte of each plane.
  KVANT_HD static void StorePlanes(int stretch, int halves, int lane, std::byte* sealed) {
    const int column = lane / 4 * halves;
    if (column >= kTileColumns) return;
    const float max = Greatest(sealed, lane);
    const float inverse = max > 0.0f ? kTop / max : 0.0f;
    const Values mine = *ValuesOf(sealed, stretch, lane);
    uint32_t bits[8];
    KVANT_UNROLL
    for (int i = 0; i < 8; ++i) {
      bits[i] = static_cast<uint32_t>(static_cast<int32_t>(Integer(mine.value[i], inverse)));
    }
    const int planes = kSketchPlanes / halves;
    KVANT_UNROLL
    for (int p = 0; p < kSketchPlanes; ++p) {
      uint32_t byte = 0;
      KVANT_UNROLL
      for (int i = 0; i < 8; ++i) byte |= (bits[i] >> p & 1) << i;
      const int to_lane = (column + p / planes) * 4 + lane % 4;
      const int word = (p % planes % 2 == 0 ? 2 : 0) + stretch % 8 / 4;
      const int vector = DigitVector(stretch / 8, p % planes / 2, to_lane);
      sealed[kPlanesByteOfs + (vector * 4 + word) * 4 + stretch % 4] = static_cast<std::byte>(byte);
    }
  }

  KVANT_HD static void StoreHeader(const std::byte* tables, int halves, int lane, std::byte* sealed) {
    const float max = Greatest(sealed, lane);
    const float inverse = max > 0.0f ? kTop / max : 0.0f;
    float sum = 0.0f;
    for (int i = 0; i < kStretches; ++i) {
      const Values values = *ValuesOf(sealed, i, lane);
      KVANT_UNROLL
      for (int j = 0; j < 8; ++j) sum += Integer(values.value[j], inverse);
    }
    KVANT_UNROLL
    for (int mask = 1; mask < 4; mask *= 2) sum += W::ShuffleXor(sum, mask);
    auto* header = reinterpret_cast<SketchHeader*>(sealed);
    if (lane % 4 == 0) {
      const SketchTerm term = SketchTerm::Of(max / kTop * EstimatorFactor(kBits), sum);
      header->factor[lane / 4] = term.factor;
      header->offset[lane / 4] = term.offset;
    }
    if (lane == 0) {
      header->tables = tables;
      header->halves = halves;
    }
  }
};

/// Queries of a tile in a launch of their own: one of kTileColumns warps.
template <class W, class Keys>
KVANT_HD void PrepareSketchWarp(const PrepareParams& p, int sequence, int kv_head, int tile, int warp, int lane) {
  const int64_t index = (static_cast<int64_t>(sequence) * p.shape.kv_heads + kv_head) * p.shape.tiles() + tile;
  std::byte* queries = reinterpret_cast<std::byte*>(p.out) + index * QueryBytes<Keys>();
  W::LaunchNext();
  StoreQuery<W, Keys::kDim>(p, LoadQuery<W, Keys::kDim>(p, sequence, kv_head, tile, warp, lane), warp, lane,
                            reinterpret_cast<uint16_t*>(queries));
  W::BlockSync();
  Keys::MapQueries(p.sketch_tables, p.shape.columns() - tile * kTileColumns, warp, kTileColumns, lane, queries);
}

}  // namespace kvant::cuda
