#include <algorithm>

#include "codec/parts/tile_kernels_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/tile_score_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"
#include "codec/parts/trellis_levels-inl.h"

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
template <class Reader, int kToken, int kVectors, int kColumns, int kQuad>
HWY_INLINE void ScoreQuad(const uint8_t* HWY_RESTRICT tile, const int8_t* HWY_RESTRICT q, size_t stride,
                          const typename Reader::Table& table, V32 (&acc)[kColumns][kVectors]) {
  V8 levels[kVectors];
  Reader::template Tokens<kQuad, kToken>(tile, table, levels);
  for (int col = 0; col < kColumns; ++col) {
    const auto query = BroadcastQuad(q + static_cast<size_t>(col) * stride + kQuad * 4);
    for (int v = 0; v < kVectors; ++v) acc[col][v] = DotBytes(acc[col][v], levels[v], query);
  }
}

template <class Reader, int kToken, int kVectors, int kColumns>
HWY_NOINLINE void ScorePass(const ScoreArgs& args, const std::byte* packed) {
  const auto table = Reader::LoadTable(args.m->levels);
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
  for (int i = args.first_tile; i < args.last_tile; ++i, tile += TileBytes(Reader::kBits)) {
    const int8_t* q = args.q + i * kTileChannels;
    if (args.m->maybe_ahead) args.m->maybe_ahead->Prefetch();
    ScoreQuad<Reader, kToken, kVectors, kColumns, 0>(tile, q, stride, table, acc);
    ScoreQuad<Reader, kToken, kVectors, kColumns, 1>(tile, q, stride, table, acc);
    ScoreQuad<Reader, kToken, kVectors, kColumns, 2>(tile, q, stride, table, acc);
    ScoreQuad<Reader, kToken, kVectors, kColumns, 3>(tile, q, stride, table, acc);
  }
  for (int col = 0; col < kColumns; ++col) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(acc[col][v], d32, args.sums + col * 64 + kToken + v * kLanes32);
  }
}

// Tokens kToken..kEnd-1 in passes whose accumulators fit the registers.
template <class Reader, int kColumns, int kToken, int kEnd>
HWY_INLINE void ScoreTokens(const ScoreArgs& args, const std::byte* packed) {
  if constexpr (kToken < kEnd) {
    constexpr int kLeft = (kEnd - kToken) / kLanes32;
    constexpr int kFit = kMaxAccumulators / kColumns;
    constexpr int kVectors = std::min({kLeft, kFit, kMaxVectors});
    ScorePass<Reader, kToken, kVectors, kColumns>(args, packed);
    ScoreTokens<Reader, kColumns, kToken + kVectors * kLanes32, kEnd>(args, packed);
  }
}

template <class Reader, int kColumns>
HWY_INLINE void ScoreRange(const ScoreArgs& args, const std::byte* packed, int first_token, int last_token) {
  if (first_token == 0 && last_token == 64) return ScoreTokens<Reader, kColumns, 0, 64>(args, packed);
  if (first_token < 32) ScoreTokens<Reader, kColumns, 0, 32>(args, packed);
  if (last_token > 32) ScoreTokens<Reader, kColumns, 32, 64>(args, packed);
}

template <class Reader>
void ScoreColumns(ScoreArgs args, const std::byte* packed, int columns, int first_token, int last_token) {
  const auto advance = [&](int count) {
    args.q += static_cast<size_t>(count) * static_cast<size_t>(args.m->num_tiles) * kTileChannels;
    args.sums += count * 64;
    columns -= count;
  };
  if constexpr (kMaxAccumulators >= 16) {  // two planes of four heads unpack the codes once
    for (; columns >= 8; advance(8)) ScoreRange<Reader, 8>(args, packed, first_token, last_token);
  }
  for (; columns >= 4; advance(4)) ScoreRange<Reader, 4>(args, packed, first_token, last_token);
  if (columns >= 2) {
    ScoreRange<Reader, 2>(args, packed, first_token, last_token);
    advance(2);
  }
  if (columns == 1) ScoreRange<Reader, 1>(args, packed, first_token, last_token);
}

using ScoreFunction = void (*)(ScoreArgs, const std::byte*, int, int, int);
template <template <int> class Reader>
constexpr ScoreFunction kNarrowScore[5] = {nullptr, ScoreColumns<Reader<1>>, ScoreColumns<Reader<2>>,
                                           ScoreColumns<Reader<3>>, ScoreColumns<Reader<4>>};

ScoreFunction ScoreOf(int bits, bool trellis) {
  if (bits == 6) return ScoreColumns<CodeReader<6>>;
  if (bits == 8) return ScoreColumns<CodeReader<8>>;
  if constexpr (kReadsTrellis) {
    if (trellis) return kNarrowScore<TrellisReader>[bits];
  }
  return kNarrowScore<CodeReader>[bits];
}

void Score(const TileMatrix& m, const int8_t* q, int columns, int first_token, int last_token, int32_t* sums) {
  bool more = false;
  ForEachStretch(m, [&](int bits, int first, int last, const std::byte* packed) {
    ScoreOf(bits, m.trellis)({&m, q, sums, first, last, more}, packed, columns, first_token, last_token);
    more = true;
  });
  for (int col = 0; !more && col < columns; ++col) {
    for (int t = first_token; t < last_token; t += kLanes32) hn::StoreU(hn::Zero(d32), d32, sums + col * 64 + t);
  }
}
#endif  // HWY_SCALAR

TileReaders BestReaders() {
#if HWY_TARGET == HWY_SCALAR
  return {ReferenceTileKernels().score, false};
#else
  return {Score, kReadsTrellis};
#endif
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(BestReaders);

TileReaders GetTileReaders() { return HWY_DYNAMIC_DISPATCH(BestReaders)(); }

}  // namespace kvant
#endif  // HWY_ONCE
