#include <algorithm>

#include "codec/parts/tile_kernels_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/tile_accumulate_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"
#include "codec/parts/trellis_levels-inl.h"

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

// Adds 4 tokens to the sums of kTiles tiles, which share the broadcast weights.
template <int kHeads, int kPlanes, int kTiles>
HWY_INLINE void AddQuad(const V8 (&levels)[kTiles], const int8_t* HWY_RESTRICT w, int quad,
                        V32 (&sum)[kTiles][kHeads][kPlanes]) {
  for (int h = 0; h < kHeads; ++h) {
    for (int p = 0; p < kPlanes; ++p) {
      const auto weights = BroadcastQuad(w + h * 128 + p * 64 + quad * 4);
      for (int i = 0; i < kTiles; ++i) sum[i][h][p] = DotBytes(sum[i][h][p], levels[i], weights);
    }
  }
}

// All tokens from quad kQuad on, for the channels of vector kPart of each tile. Quads of one field of the narrowest plane
// differ by an offset only: a loop.
template <class Reader, int kHeads, int kPlanes, int kTiles, int kPart, int kQuad = 0>
HWY_INLINE void AccumulateCodes(const AccumulateArgs& args, const uint8_t* HWY_RESTRICT tiles, V8 table,
                                V32 (&sum)[kTiles][kHeads][kPlanes]) {
  constexpr int kBits = Reader::kBits;
  constexpr int kNarrowest = TilePlane1Bits(kBits) != 0 ? TilePlane1Bits(kBits) : kBits;
  constexpr int kQuadsPerField = 128 * kNarrowest / 64;
  if (kPart == 0 && args.maybe_ahead) args.maybe_ahead->Prefetch(kLinesPerTile * kTiles * kQuadsPerField / 16);
  for (int quad = 0; quad < kQuadsPerField; ++quad) {
    V8 levels[kTiles];
    for (int i = 0; i < kTiles; ++i) {
      constexpr int kIndex = kQuad * 64 + kPart * kLanes8;
      levels[i] = Levels<kBits, kIndex>(tiles + TileBytes(kBits) * static_cast<size_t>(i), quad * 64, table);
    }
    AddQuad(levels, args.w, kQuad + quad, sum);
  }
  if constexpr (kQuad + kQuadsPerField < 16) {
    AccumulateCodes<Reader, kHeads, kPlanes, kTiles, kPart, kQuad + kQuadsPerField>(args, tiles, table, sum);
  }
}

// The same for the runs of a trellis, part by part; a vector holds all channels.
template <class Reader, int kHeads, int kPlanes, int kTiles, int kRunPart = 0>
HWY_INLINE void AccumulateRuns(const AccumulateArgs& args, const uint8_t* HWY_RESTRICT tiles, const LevelTable& table,
                               V32 (&sum)[kTiles][kHeads][kPlanes]) {
  if constexpr (kRunPart < 4) {
    if (args.maybe_ahead) args.maybe_ahead->Prefetch(kLinesPerTile * kTiles / 4);
    Runs<TileOrder::kChannelLane, Reader::kBits> runs[kTiles];
    for (int i = 0; i < kTiles; ++i) {
      runs[i].template Load<kRunPart % 2>(tiles + TileBytes(Reader::kBits) * static_cast<size_t>(i), kRunPart / 2, 0);
    }
    V8 levels[4][kTiles];
    for (int i = 0; i < kTiles; ++i) {
      levels[0][i] = runs[i].template Levels<0>(table);
      levels[1][i] = runs[i].template Levels<1>(table);
      levels[2][i] = runs[i].template Levels<2>(table);
      levels[3][i] = runs[i].template Levels<3>(table);
    }
    for (int pair = 0; pair < 4; ++pair) AddQuad(levels[pair], args.w, 4 * pair + kRunPart, sum);
    AccumulateRuns<Reader, kHeads, kPlanes, kTiles, kRunPart + 1>(args, tiles, table, sum);
  }
}

template <class Reader, int kHeads, int kPlanes, int kTiles, int kPart = 0>
HWY_INLINE void AccumulateParts(const AccumulateArgs& args, const uint8_t* tiles, const typename Reader::Table& table,
                                float* acc) {
  if constexpr (kPart < kVectorsPerQuad) {
    V32 sum[kTiles][kHeads][kPlanes];
    for (auto& tile : sum) {
      for (auto& head : tile) {
        for (V32& plane : head) plane = hn::Zero(d32);
      }
    }
    if constexpr (Reader::kTrellis) {
      AccumulateRuns<Reader>(args, tiles, table, sum);
    } else {
      AccumulateCodes<Reader, kHeads, kPlanes, kTiles, kPart>(args, tiles, table, sum);
    }
    const hn::Repartition<float, D8> df;
    for (int i = 0; i < kTiles; ++i) {
      for (int h = 0; h < kHeads; ++h) {
        V32 total = hn::ShiftLeft<7>(sum[i][h][0]);
        if constexpr (kPlanes == 2) total = hn::Add(total, sum[i][h][1]);
        float* out = acc + static_cast<size_t>(h) * args.acc_stride + i * kTileChannels + kPart * kLanes32;
        hn::StoreU(hn::MulAdd(hn::ConvertTo(df, total), hn::Set(df, args.scale[h]), hn::LoadU(df, out)), df, out);
      }
    }
    AccumulateParts<Reader, kHeads, kPlanes, kTiles, kPart + 1>(args, tiles, table, acc);
  }
}

// kTiles at a time, and what is left by fewer.
template <class Reader, int kHeads, int kPlanes, int kTiles>
HWY_INLINE void AccumulateTilesBy(const AccumulateArgs& args, const uint8_t* tile, const typename Reader::Table& table,
                                  int num_tiles, float* acc) {
  for (; num_tiles >= kTiles; num_tiles -= kTiles) {
    AccumulateParts<Reader, kHeads, kPlanes, kTiles>(args, tile, table, acc);
    tile += kTiles * TileBytes(Reader::kBits);
    acc += kTiles * kTileChannels;
  }
  if constexpr (kTiles > 1) {
    AccumulateTilesBy<Reader, kHeads, kPlanes, kTiles / 2>(args, tile, table, num_tiles, acc);
  }
}

template <class Reader, int kHeads, int kPlanes>
HWY_NOINLINE void AccumulateTiles(const AccumulateArgs& args, const std::byte* packed, int num_tiles) {
  constexpr int kMost = kPlanes == 1 && !Reader::kTrellis ? 4 : 2;  // runs need registers too
  constexpr int kTiles = std::clamp(kMaxAccumulators / (kHeads * kPlanes), 1, kMost);
  AccumulateTilesBy<Reader, kHeads, kPlanes, kTiles>(args, reinterpret_cast<const uint8_t*>(packed),
                                                     Reader::LoadTable(args.levels), num_tiles, args.acc);
}

template <class Reader, int kPlanes>
HWY_INLINE void AccumulateHeads(AccumulateArgs args, const std::byte* packed, int num_tiles, int heads) {
  constexpr int kMost = kMaxAccumulators / 2 / kPlanes < 4 ? kMaxAccumulators / 2 / kPlanes : 4;
  const auto advance = [&](int count) {
    args.w += count * 128;
    args.scale += count;
    args.acc += static_cast<size_t>(count) * args.acc_stride;
    heads -= count;
  };
  for (; heads >= kMost; advance(kMost)) AccumulateTiles<Reader, kMost, kPlanes>(args, packed, num_tiles);
  for (; heads > 0; advance(1)) AccumulateTiles<Reader, 1, kPlanes>(args, packed, num_tiles);
}

template <class Reader>
void AccumulatePlanes(const AccumulateArgs& args, const std::byte* packed, int num_tiles, int heads, int planes) {
  if (planes == 2) return AccumulateHeads<Reader, 2>(args, packed, num_tiles, heads);
  return AccumulateHeads<Reader, 1>(args, packed, num_tiles, heads);
}

using AccumulateFunction = void (*)(const AccumulateArgs&, const std::byte*, int, int, int);
template <template <int> class Reader>
constexpr AccumulateFunction kNarrowAccumulate[5] = {nullptr, AccumulatePlanes<Reader<1>>, AccumulatePlanes<Reader<2>>,
                                                     AccumulatePlanes<Reader<3>>, AccumulatePlanes<Reader<4>>};

AccumulateFunction AccumulateOf(int bits, bool trellis) {
  if (bits == 6) return AccumulatePlanes<CodeReader<6>>;
  if (bits == 8) return AccumulatePlanes<CodeReader<8>>;
  if constexpr (kReadsTrellis) {
    if (trellis) return kNarrowAccumulate<TrellisReader>[bits];
  }
  return kNarrowAccumulate<CodeReader>[bits];
}

void Accumulate(const TileMatrix& m, const int8_t* w, int heads, int planes, const float* scale, float* acc,
                size_t acc_stride) {
  ForEachStretch(m, [&](int bits, int first, int last, const std::byte* packed) {
    const AccumulateArgs args = {m.levels, w, scale, acc + first * kTileChannels, acc_stride, m.maybe_ahead};
    AccumulateOf(bits, m.trellis)(args, packed, last - first, heads, planes);
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
