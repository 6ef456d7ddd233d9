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

// Adds the tiles first..last-1, which have one width.
template <class Reader, int kToken, int kVectors, int kColumns>
HWY_INLINE void ScoreTiles(const ScoreArgs& args, int first, int last, const std::byte* packed,
                           V32 (&acc)[kColumns][kVectors]) {
  const auto table = Reader::LoadTable(args.m->levels);
  const size_t stride = static_cast<size_t>(args.m->num_tiles) * kTileChannels;
  const uint8_t* tile = reinterpret_cast<const uint8_t*>(packed);
  for (int i = first; i < last; ++i, tile += TileBytes(Reader::kBits)) {
    const int8_t* q = args.q + i * kTileChannels;
    if (args.m->maybe_ahead) args.m->maybe_ahead->Prefetch();
    ScoreQuad<Reader, kToken, kVectors, kColumns, 0>(tile, q, stride, table, acc);
    ScoreQuad<Reader, kToken, kVectors, kColumns, 1>(tile, q, stride, table, acc);
    ScoreQuad<Reader, kToken, kVectors, kColumns, 2>(tile, q, stride, table, acc);
    ScoreQuad<Reader, kToken, kVectors, kColumns, 3>(tile, q, stride, table, acc);
  }
}

// All tiles, whose widths may change on the way: the sums stay in registers.
template <template <int> class NarrowReader, int kToken, int kVectors, int kColumns>
HWY_NOINLINE void ScorePass(const ScoreArgs& args) {
  V32 acc[kColumns][kVectors];
  for (auto& column : acc) {
    for (V32& sum : column) sum = hn::Zero(d32);
  }
  ForEachStretch(*args.m, [&](int bits, int first, int last, const std::byte* packed) HWY_ATTR {
    switch (bits) {
      case 1:
        return ScoreTiles<NarrowReader<1>, kToken>(args, first, last, packed, acc);
      case 2:
        return ScoreTiles<NarrowReader<2>, kToken>(args, first, last, packed, acc);
      case 3:
        return ScoreTiles<NarrowReader<3>, kToken>(args, first, last, packed, acc);
      case 4:
        return ScoreTiles<NarrowReader<4>, kToken>(args, first, last, packed, acc);
      case 6:
        return ScoreTiles<CodeReader<6>, kToken>(args, first, last, packed, acc);
      default:
        return ScoreTiles<CodeReader<8>, kToken>(args, first, last, packed, acc);
    }
  });
  for (int col = 0; col < kColumns; ++col) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(acc[col][v], d32, args.sums + col * 64 + kToken + v * kLanes32);
  }
}

// Tokens kToken..kEnd-1 in passes whose accumulators fit the registers.
template <template <int> class NarrowReader, int kColumns, int kToken, int kEnd>
HWY_INLINE void ScoreTokens(const ScoreArgs& args) {
  if constexpr (kToken < kEnd) {
    constexpr int kLeft = (kEnd - kToken) / kLanes32;
    constexpr int kFit = kMaxAccumulators / kColumns;
    constexpr int kVectors = std::min({kLeft, kFit, kMaxVectors});
    ScorePass<NarrowReader, kToken, kVectors, kColumns>(args);
    ScoreTokens<NarrowReader, kColumns, kToken + kVectors * kLanes32, kEnd>(args);
  }
}

template <template <int> class NarrowReader, int kColumns>
HWY_INLINE void ScoreRange(const ScoreArgs& args, int first_token, int last_token) {
  if (first_token == 0 && last_token == 64) return ScoreTokens<NarrowReader, kColumns, 0, 64>(args);
  if (first_token < 32) ScoreTokens<NarrowReader, kColumns, 0, 32>(args);
  if (last_token > 32) ScoreTokens<NarrowReader, kColumns, 32, 64>(args);
}

template <template <int> class NarrowReader>
void ScoreColumns(ScoreArgs args, int columns, int first_token, int last_token) {
  const auto advance = [&](int count) {
    args.q += static_cast<size_t>(count) * static_cast<size_t>(args.m->num_tiles) * kTileChannels;
    args.sums += count * 64;
    columns -= count;
  };
  if constexpr (kMaxAccumulators >= 16) {  // two planes of four heads unpack the codes once
    for (; columns >= 8; advance(8)) ScoreRange<NarrowReader, 8>(args, first_token, last_token);
  }
  for (; columns >= 4; advance(4)) ScoreRange<NarrowReader, 4>(args, first_token, last_token);
  if (columns >= 2) {
    ScoreRange<NarrowReader, 2>(args, first_token, last_token);
    advance(2);
  }
  if (columns == 1) ScoreRange<NarrowReader, 1>(args, first_token, last_token);
}

void Score(const TileMatrix& m, const int8_t* q, int columns, int first_token, int last_token, int32_t* sums) {
  if constexpr (kReadsTrellis) {
    if (m.trellis) return ScoreColumns<TrellisReader>({&m, q, sums}, columns, first_token, last_token);
  }
  ScoreColumns<CodeReader>({&m, q, sums}, columns, first_token, last_token);
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
