// Queries for sketched keys: S q of a tile's columns, as bit planes. All warps of a block share the work: products by 16
// directions, planes by 32.
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
  static constexpr int kParts = kBits / 16;      ///< of products
  static constexpr int kStretches = kBits / 32;  ///< of planes, a byte for each lane
  static constexpr int kPlanesByteOfs = 128;
  static constexpr int kFloatsByteOfs = kPlanesByteOfs + kChunks * kSketchDigits * kLanes * 16;
  static constexpr int kMaximaByteOfs = kFloatsByteOfs + kParts * kLanes * 16;
  static constexpr int kBytes = kMaximaByteOfs + kParts * kTileColumns * 4;
  static_assert(sizeof(SketchHeader) <= kPlanesByteOfs && kBits % kSketchChunk == 0);

  /// Directions of a part, which take as long to come as a query: loaded while that is on its way.
  struct Constants {
    ChannelWords<kDim> tile[2];

    KVANT_HD Constants(const std::byte* tables, int part, int lane) {
      constexpr SketchTableLayout kLayout = {kDim};
      KVANT_UNROLL
      for (int i = 0; i < 2; ++i) {
        tile[i].LoadQuery(tables + ((part < kParts ? part : 0) * 2 + i) * kLayout.tile_bytes(), lane);
      }
    }
  };

  /// `first`: of part `warp`. `queries`: of the tile; those as they are have been stored, and a BlockSync has followed.
  /// Another one is the last thing here.
  KVANT_HD static void Map(const Constants& first, const std::byte* tables, int columns, int warp, int warps, int lane,
                           std::byte* queries) {
    std::byte* sealed = queries + PlainQueryBytes(kDim);
    if (warp < kParts) Project(first, queries, warp, lane, sealed);
    for (int i = warp + warps; i < kParts; i += warps) Project(Constants(tables, i, lane), queries, i, lane, sealed);
    W::BlockSync();
    const int halves = columns <= kTileColumns / 2 ? 2 : 1;
    for (int i = warp; i < kStretches; i += warps) StorePlanes(i, halves, lane, sealed);
    if (warp == warps - 1) StoreHeader(tables, halves, lane, sealed);
    W::BlockSync();
  }

 private:
  /// What a lane has of a part: column lane / 4, directions 2t and 2t + 1 of its two tiles.
  struct alignas(16) Values {
    float value[4];
  };
  KVANT_HD static Values* ValuesOf(std::byte* sealed, int part, int lane) {
    return reinterpret_cast<Values*>(sealed + kFloatsByteOfs) + part * kLanes + lane;
  }

  KVANT_HD static void Project(const Constants& directions, const std::byte* plain, int part, int lane,
                               std::byte* sealed) {
    ChannelWords<kDim> query;
    query.LoadQuery(plain, lane);
    Values mine;
    float max = 0.0f;
    KVANT_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      float c[4] = {};
      KVANT_UNROLL
      for (int s = 0; s < kDim / kStepChannels; ++s) {
        const uint32_t a[4] = {query.word[2 * s], 0, query.word[2 * s + 1], 0};
        StepProduct<W>(c, a, &directions.tile[tile].word[2 * s]);
      }
      KVANT_UNROLL
      for (int i = 0; i < 2; ++i) {
        mine.value[2 * tile + i] = c[i];
        max = W::Max(max, W::Max(c[i], -c[i]));
      }
    }
    *ValuesOf(sealed, part, lane) = mine;
    max = MaxOfLanes<W, 4>(max);
    if (lane % 4 == 0) {
      reinterpret_cast<float*>(sealed + kMaximaByteOfs)[part * kTileColumns + lane / 4] = max;
    }
  }

  /// The greatest value of the lane's column is kSketchTop units.
  KVANT_HD static float Greatest(const std::byte* sealed, int lane) {
    const float* maxima = reinterpret_cast<const float*>(sealed + kMaximaByteOfs) + lane / 4;
    float max = 0.0f;
    KVANT_UNROLL
    for (int i = 0; i < kParts; ++i) max = W::Max(max, maxima[i * kTileColumns]);
    return max;
  }
  KVANT_HD static float Integer(float value, float inverse) { return W::Round(value * inverse); }

  /// The stretch's byte of each plane.
  KVANT_HD static void StorePlanes(int stretch, int halves, int lane, std::byte* sealed) {
    const int column = lane / 4 * halves;
    if (column >= kTileColumns) return;
    const float max = Greatest(sealed, lane);
    const float inverse = max > 0.0f ? kSketchTop / max : 0.0f;
    uint32_t bits[8];
    KVANT_UNROLL
    for (int part = 0; part < 2; ++part) {
      const Values mine = *ValuesOf(sealed, 2 * stretch + part, lane);
      KVANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        bits[4 * part + i] = static_cast<uint32_t>(static_cast<int32_t>(Integer(mine.value[i], inverse)));
      }
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
    const float inverse = max > 0.0f ? kSketchTop / max : 0.0f;
    float sums[4] = {};
    KVANT_UNROLL
    for (int i = 0; i < kParts; ++i) {
      const Values values = *ValuesOf(sealed, i, lane);
      KVANT_UNROLL
      for (int j = 0; j < 4; ++j) sums[j] += Integer(values.value[j], inverse);
    }
    const float sum = SumOfLanes<W, 4>(sums[0] + sums[1] + sums[2] + sums[3]);
    auto* header = reinterpret_cast<SketchHeader*>(sealed);
    if (lane % 4 == 0) {
      const SketchTerm term = SketchTerm::Of(max / kSketchTop * EstimatorFactor(kBits), sum);
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
  const typename Keys::Queries::Constants first(p.sketch_tables, warp, lane);
  StoreQuery<W, Keys::kDim>(p, LoadQuery<W, Keys::kDim>(p, sequence, kv_head, tile, warp, lane), warp, lane,
                            reinterpret_cast<uint16_t*>(queries));
  W::BlockSync();
  Keys::Queries::Map(first, p.sketch_tables, p.shape.columns() - tile * kTileColumns, warp, kTileColumns, lane,
                     queries);
}

}  // namespace kvant::cuda
