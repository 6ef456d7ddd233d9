#include <algorithm>

#include "codec/parts/tile_kernels_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/tile_accumulate_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET != HWY_SCALAR
struct AccumulateArgs {
  const TileLevels* levels;
  const int8_t* w;  // [heads][2][64], first head of this pass
  const float* scale;
  float* acc;  // channel 0 of the first tile, first head of this pass
  size_t acc_stride;
  ReadAhead* maybe_ahead;
};

constexpr int kLinesPerTile = 6;               // prefetched
constexpr int kVectorsPerQuad = 64 / kLanes8;  // vectors that hold 16 channels x 4 tokens

// Adds the tokens from quad kQuad on, 4 at a time, to the sums of kTiles tiles (they share the broadcast weights), over
// the channels of vector kPart of each. Quads of one field of the narrowest plane differ by an offset only: a loop.
template <int kBits, int kHeads, int kPlanes, int kTiles, int kPart, int kQuad = 0>
HWY_INLINE void AccumulateQuads(const AccumulateArgs& args, const uint8_t* HWY_RESTRICT tiles, V8 table,
                                V32 (&sum)[kTiles][kHeads][kPlanes]) {
  constexpr int kNarrowest = TilePlane1Bits(kBits) != 0 ? TilePlane1Bits(kBits) : kBits;
  constexpr int kQuadsPerField = 128 * kNarrowest / 64;
  const int8_t* HWY_RESTRICT w = args.w;
  if (kPart == 0 && args.maybe_ahead) args.maybe_ahead->Prefetch(kLinesPerTile * kTiles * kQuadsPerField / 16);
  for (int quad = 0; quad < kQuadsPerField; ++quad) {
    V8 levels[kTiles];
    for (int i = 0; i < kTiles; ++i) {
      constexpr int kIndex = kQuad * 64 + kPart * kLanes8;
      levels[i] = Levels<kBits, kIndex>(tiles + TileBytes(kBits) * static_cast<size_t>(i), quad * 64, table);
    }
    for (int h = 0; h < kHeads; ++h) {
      for (int p = 0; p < kPlanes; ++p) {
        const auto weights = BroadcastQuad(w + h * 128 + p * 64 + (kQuad + quad) * 4);
        for (int i = 0; i < kTiles; ++i) sum[i][h][p] = DotBytes(sum[i][h][p], levels[i], weights);
      }
    }
  }
  if constexpr (kQuad + kQuadsPerField < 16) {
    AccumulateQuads<kBits, kHeads, kPlanes, kTiles, kPart, kQuad + kQuadsPerField>(args, tiles, table, sum);
  }
}

template <int kBits, int kHeads, int kPlanes, int kTiles, int kPart = 0>
HWY_INLINE void AccumulateParts(const AccumulateArgs& args, const uint8_t* tiles, V8 table, float* acc) {
  if constexpr (kPart < kVectorsPerQuad) {
    V32 sum[kTiles][kHeads][kPlanes];
    for (auto& tile : sum) {
      for (auto& head : tile) {
        for (V32& plane : head) plane = hn::Zero(d32);
      }
    }
    AccumulateQuads<kBits, kHeads, kPlanes, kTiles, kPart>(args, tiles, table, sum);
    const hn::Repartition<float, D8> df;
    for (int i = 0; i < kTiles; ++i) {
      for (int h = 0; h < kHeads; ++h) {
        V32 total = hn::ShiftLeft<7>(sum[i][h][0]);
        if constexpr (kPlanes == 2) total = hn::Add(total, sum[i][h][1]);
        float* out = acc + static_cast<size_t>(h) * args.acc_stride + i * kTileChannels + kPart * kLanes32;
        hn::StoreU(hn::MulAdd(hn::ConvertTo(df, total), hn::Set(df, args.scale[h]), hn::LoadU(df, out)), df, out);
      }
    }
    AccumulateParts<kBits, kHeads, kPlanes, kTiles, kPart + 1>(args, tiles, table, acc);
  }
}

// kTiles at a time, and what is left by fewer.
template <int kBits, int kHeads, int kPlanes, int kTiles>
HWY_INLINE void AccumulateTilesBy(const AccumulateArgs& args, const uint8_t* tile, V8 table, int num_tiles,
                                  float* acc) {
  for (; num_tiles >= kTiles; num_tiles -= kTiles) {
    AccumulateParts<kBits, kHeads, kPlanes, kTiles>(args, tile, table, acc);
    tile += kTiles * TileBytes(kBits);
    acc += kTiles * kTileChannels;
  }
  if constexpr (kTiles > 1) {
    AccumulateTilesBy<kBits, kHeads, kPlanes, kTiles / 2>(args, tile, table, num_tiles, acc);
  }
}

template <int kBits, int kHeads, int kPlanes>
HWY_NOINLINE void AccumulateTiles(const AccumulateArgs& args, const std::byte* packed, int num_tiles) {
  constexpr int kTiles = std::clamp(kMaxAccumulators / (kHeads * kPlanes), 1, kPlanes == 1 ? 4 : 2);
  AccumulateTilesBy<kBits, kHeads, kPlanes, kTiles>(args, reinterpret_cast<const uint8_t*>(packed),
                                                    LoadTable(args.levels, kBits), num_tiles, args.acc);
}

template <int kBits, int kPlanes>
HWY_INLINE void AccumulateHeads(AccumulateArgs args, const std::byte* packed, int num_tiles, int heads) {
  constexpr int kMost = kMaxAccumulators / 2 / kPlanes < 4 ? kMaxAccumulators / 2 / kPlanes : 4;
  const auto advance = [&](int count) {
    args.w += count * 128;
    args.scale += count;
    args.acc += static_cast<size_t>(count) * args.acc_stride;
    heads -= count;
  };
  for (; heads >= kMost; advance(kMost)) AccumulateTiles<kBits, kMost, kPlanes>(args, packed, num_tiles);
  for (; heads > 0; advance(1)) AccumulateTiles<kBits, 1, kPlanes>(args, packed, num_tiles);
}

template <int kBits>
void AccumulateBits(const AccumulateArgs& args, const std::byte* packed, int num_tiles, int heads, int planes) {
  if (planes == 2) return AccumulateHeads<kBits, 2>(args, packed, num_tiles, heads);
  return AccumulateHeads<kBits, 1>(args, packed, num_tiles, heads);
}

using AccumulateFunction = void (*)(const AccumulateArgs&, const std::byte*, int, int, int);
constexpr AccumulateFunction kAccumulate[9] = {nullptr,           AccumulateBits<1>, AccumulateBits<2>,
                                               AccumulateBits<3>, AccumulateBits<4>, nullptr,
                                               AccumulateBits<6>, nullptr,           AccumulateBits<8>};

void Accumulate(const TileMatrix& m, const int8_t* w, int heads, int planes, const float* scale, float* acc,
                size_t acc_stride) {
  ForEachStretch(m, [&](int bits, int first, int last, const std::byte* packed) {
    const AccumulateArgs args = {m.levels, w, scale, acc + first * kTileChannels, acc_stride, m.maybe_ahead};
    kAccumulate[bits](args, packed, last - first, heads, planes);
  });
}
#endif  // HWY_SCALAR

TileAccumulate BestAccumulate() {
#if HWY_TARGET == HWY_SCALAR
  return ReferenceTileKernels().accumulate;
#else
  return Accumulate;
#endif
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(BestAccumulate);

TileAccumulate GetTileAccumulate() { return HWY_DYNAMIC_DISPATCH(BestAccumulate)(); }

}  // namespace kvant
#endif  // HWY_ONCE
