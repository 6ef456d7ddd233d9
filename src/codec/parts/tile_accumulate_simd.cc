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
};

constexpr int kVectorsPerQuad = 64 / kLanes8;  // vectors that hold 16 channels x 4 tokens

template <int kBits, bool kTable, int kHeads, int kPlanes, int kPart, int kQuad>
HWY_INLINE void AccumulateQuads(const uint8_t* HWY_RESTRICT tile, const int8_t* HWY_RESTRICT w, V8 table,
                                V32 (&sum)[kHeads][kPlanes]) {
  if constexpr (kQuad < 16) {
    const V8 levels = Levels<kBits, kTable, kQuad * 64 + kPart * kLanes8>(tile, 0, table);
    for (int h = 0; h < kHeads; ++h) {
      for (int p = 0; p < kPlanes; ++p) {
        sum[h][p] = DotBytes(sum[h][p], levels, BroadcastQuad(w + h * 128 + p * 64 + kQuad * 4));
      }
    }
    AccumulateQuads<kBits, kTable, kHeads, kPlanes, kPart, kQuad + 1>(tile, w, table, sum);
  }
}

// One vector's worth of channels (part kPart of a tile).
template <int kBits, bool kTable, int kHeads, int kPlanes, int kPart>
HWY_INLINE void AccumulatePart(const AccumulateArgs& args, const uint8_t* tile, V8 table, float* acc) {
  if constexpr (kPart < kVectorsPerQuad) {
    V32 sum[kHeads][kPlanes];
    for (int h = 0; h < kHeads; ++h) {
      for (int p = 0; p < kPlanes; ++p) sum[h][p] = hn::Zero(d32);
    }
    AccumulateQuads<kBits, kTable, kHeads, kPlanes, kPart, 0>(tile, args.w, table, sum);
    const hn::Repartition<float, D8> df;
    for (int h = 0; h < kHeads; ++h) {
      V32 total = hn::ShiftLeft<7>(sum[h][0]);
      if constexpr (kPlanes == 2) total = hn::Add(total, sum[h][1]);
      float* out = acc + static_cast<size_t>(h) * args.acc_stride + kPart * kLanes32;
      hn::StoreU(hn::MulAdd(hn::ConvertTo(df, total), hn::Set(df, args.scale[h]), hn::LoadU(df, out)), df, out);
    }
    AccumulatePart<kBits, kTable, kHeads, kPlanes, kPart + 1>(args, tile, table, acc);
  }
}

template <int kBits, bool kTable, int kHeads, int kPlanes>
HWY_NOINLINE void AccumulateTiles(const AccumulateArgs& args, const std::byte* packed, int num_tiles) {
  const V8 table = LoadTable(args.levels, kBits);
  const uint8_t* tile = reinterpret_cast<const uint8_t*>(packed);
  for (int i = 0; i < num_tiles; ++i, tile += TileBytes(kBits)) {
    AccumulatePart<kBits, kTable, kHeads, kPlanes, 0>(args, tile, table, args.acc + i * kTileChannels);
  }
}

template <int kBits, bool kTable, int kPlanes>
HWY_INLINE void AccumulateHeads(AccumulateArgs args, const std::byte* packed, int num_tiles, int heads) {
  constexpr int kMost = kMaxAccumulators / 2 / kPlanes < 4 ? kMaxAccumulators / 2 / kPlanes : 4;
  const auto advance = [&](int count) {
    args.w += count * 128;
    args.scale += count;
    args.acc += static_cast<size_t>(count) * args.acc_stride;
    heads -= count;
  };
  for (; heads >= kMost; advance(kMost)) AccumulateTiles<kBits, kTable, kMost, kPlanes>(args, packed, num_tiles);
  for (; heads > 0; advance(1)) AccumulateTiles<kBits, kTable, 1, kPlanes>(args, packed, num_tiles);
}

template <int kBits>
void AccumulateBits(const AccumulateArgs& args, const std::byte* packed, int num_tiles, int heads, int planes) {
  const bool table = kBits <= 4 && args.levels != nullptr;
  if (planes == 2) {
    if (table) return AccumulateHeads<kBits, kBits <= 4, 2>(args, packed, num_tiles, heads);
    return AccumulateHeads<kBits, false, 2>(args, packed, num_tiles, heads);
  }
  if (table) return AccumulateHeads<kBits, kBits <= 4, 1>(args, packed, num_tiles, heads);
  return AccumulateHeads<kBits, false, 1>(args, packed, num_tiles, heads);
}

using AccumulateFunction = void (*)(const AccumulateArgs&, const std::byte*, int, int, int);
constexpr AccumulateFunction kAccumulate[9] = {
    nullptr, AccumulateBits<1>, AccumulateBits<2>, AccumulateBits<3>, AccumulateBits<4>,
    nullptr, AccumulateBits<6>, nullptr,           AccumulateBits<8>};

void Accumulate(const TileMatrix& m, const int8_t* w, int heads, int planes, const float* scale, float* acc,
                size_t acc_stride) {
  ForEachStretch(m, [&](int bits, int first, int last, const std::byte* packed) {
    const AccumulateArgs args = {m.levels, w, scale, acc + first * kTileChannels, acc_stride};
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
