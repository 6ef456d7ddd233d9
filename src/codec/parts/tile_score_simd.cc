#include <algorithm>

#include "codec/parts/tile_kernels_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/tile_score_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET != HWY_SCALAR
struct ScoreArgs {
  const TileMatrix* m;
  const int8_t* q;  // [columns][num_tiles * 16], first column of this pass
  int32_t* sums;    // [columns][64]
  int first_tile;
  int last_tile;
  bool more;  // adds to what `sums` holds
};

constexpr int kMaxVectors = 4;  // of tokens in one pass

// Adds one quad of channels to kVectors vectors of tokens from kToken on, for kColumns columns.
template <int kBits, int kToken, int kVectors, int kColumns, int kQuad>
HWY_INLINE void ScoreQuad(const uint8_t* HWY_RESTRICT tile, const int8_t* HWY_RESTRICT q, size_t stride, V8 table,
                          V32 (&acc)[kColumns][kVectors]) {
  constexpr int kIndex = (kQuad * 64 + kToken) * 4;
  static_assert(kVectors <= kMaxVectors);
  V8 levels[kVectors];
  levels[0] = Levels<kBits, kIndex>(tile, 0, table);
  if constexpr (kVectors > 1) levels[1] = Levels<kBits, kIndex + kLanes8>(tile, 0, table);
  if constexpr (kVectors > 2) levels[2] = Levels<kBits, kIndex + 2 * kLanes8>(tile, 0, table);
  if constexpr (kVectors > 3) levels[3] = Levels<kBits, kIndex + 3 * kLanes8>(tile, 0, table);
  for (int col = 0; col < kColumns; ++col) {
    const auto query = BroadcastQuad(q + static_cast<size_t>(col) * stride + kQuad * 4);
    for (int v = 0; v < kVectors; ++v) acc[col][v] = DotBytes(acc[col][v], levels[v], query);
  }
}

template <int kBits, int kToken, int kVectors, int kColumns>
HWY_NOINLINE void ScorePass(const ScoreArgs& args, const std::byte* packed) {
  const V8 table = LoadTable(args.m->levels, kBits);
  const size_t stride = static_cast<size_t>(args.m->num_tiles) * kTileChannels;
  V32 acc[kColumns][kVectors];
#pragma GCC unroll 16
  for (int col = 0; col < kColumns; ++col) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      acc[col][v] = args.more ? hn::LoadU(d32, args.sums + col * 64 + kToken + v * kLanes32) : hn::Zero(d32);
    }
  }
  const uint8_t* tile = reinterpret_cast<const uint8_t*>(packed);
  for (int i = args.first_tile; i < args.last_tile; ++i, tile += TileBytes(kBits)) {
    const int8_t* q = args.q + i * kTileChannels;
    if (args.m->maybe_ahead) args.m->maybe_ahead->Prefetch();
    ScoreQuad<kBits, kToken, kVectors, kColumns, 0>(tile, q, stride, table, acc);
    ScoreQuad<kBits, kToken, kVectors, kColumns, 1>(tile, q, stride, table, acc);
    ScoreQuad<kBits, kToken, kVectors, kColumns, 2>(tile, q, stride, table, acc);
    ScoreQuad<kBits, kToken, kVectors, kColumns, 3>(tile, q, stride, table, acc);
  }
  for (int col = 0; col < kColumns; ++col) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(acc[col][v], d32, args.sums + col * 64 + kToken + v * kLanes32);
  }
}

// Tokens kToken..kEnd-1 in passes whose accumulators fit the registers.
template <int kBits, int kColumns, int kToken, int kEnd>
HWY_INLINE void ScoreTokens(const ScoreArgs& args, const std::byte* packed) {
  if constexpr (kToken < kEnd) {
    constexpr int kLeft = (kEnd - kToken) / kLanes32;
    constexpr int kFit = kMaxAccumulators / kColumns;
    constexpr int kVectors = std::min({kLeft, kFit, kMaxVectors});
    ScorePass<kBits, kToken, kVectors, kColumns>(args, packed);
    ScoreTokens<kBits, kColumns, kToken + kVectors * kLanes32, kEnd>(args, packed);
  }
}

template <int kBits, int kColumns>
HWY_INLINE void ScoreRange(const ScoreArgs& args, const std::byte* packed, int first_token, int last_token) {
  if (first_token == 0 && last_token == 64) return ScoreTokens<kBits, kColumns, 0, 64>(args, packed);
  if (first_token < 32) ScoreTokens<kBits, kColumns, 0, 32>(args, packed);
  if (last_token > 32) ScoreTokens<kBits, kColumns, 32, 64>(args, packed);
}

template <int kBits>
HWY_INLINE void ScoreColumns(ScoreArgs args, const std::byte* packed, int columns, int first_token, int last_token) {
  const auto advance = [&](int count) {
    args.q += static_cast<size_t>(count) * static_cast<size_t>(args.m->num_tiles) * kTileChannels;
    args.sums += count * 64;
    columns -= count;
  };
  if constexpr (kMaxAccumulators >= 16) {  // two planes of four heads unpack the codes once
    for (; columns >= 8; advance(8)) ScoreRange<kBits, 8>(args, packed, first_token, last_token);
  }
  for (; columns >= 4; advance(4)) ScoreRange<kBits, 4>(args, packed, first_token, last_token);
  if (columns >= 2) {
    ScoreRange<kBits, 2>(args, packed, first_token, last_token);
    advance(2);
  }
  if (columns == 1) ScoreRange<kBits, 1>(args, packed, first_token, last_token);
}

template <int kBits>
void ScoreBits(const ScoreArgs& args, const std::byte* packed, int columns, int first_token, int last_token) {
  ScoreColumns<kBits>(args, packed, columns, first_token, last_token);
}

using ScoreFunction = void (*)(const ScoreArgs&, const std::byte*, int, int, int);
constexpr ScoreFunction kScore[9] = {nullptr, ScoreBits<1>, ScoreBits<2>, ScoreBits<3>, ScoreBits<4>,
                                     nullptr, ScoreBits<6>, nullptr,      ScoreBits<8>};

void Score(const TileMatrix& m, const int8_t* q, int columns, int first_token, int last_token, int32_t* sums) {
  bool more = false;
  ForEachStretch(m, [&](int bits, int first, int last, const std::byte* packed) {
    kScore[bits]({&m, q, sums, first, last, more}, packed, columns, first_token, last_token);
    more = true;
  });
  for (int col = 0; !more && col < columns; ++col) {
    for (int t = first_token; t < last_token; t += kLanes32) hn::StoreU(hn::Zero(d32), d32, sums + col * 64 + t);
  }
}
#endif  // HWY_SCALAR

TileScore BestScore() {
#if HWY_TARGET == HWY_SCALAR
  return ReferenceTileKernels().score;
#else
  return Score;
#endif
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(BestScore);

TileScore GetTileScore() { return HWY_DYNAMIC_DISPATCH(BestScore)(); }

}  // namespace kvant
#endif  // HWY_ONCE
