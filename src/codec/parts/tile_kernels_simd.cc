#include "codec/parts/tile_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/tile_kernels_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/dot_bytes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR
const TileKernels* Kernels() { return &ReferenceTileKernels(); }
#else

namespace hn = hwy::HWY_NAMESPACE;

// The widest vector that a tile fills evenly: 64 bytes, or what the target has.
using D8 = hn::CappedTag<uint8_t, 64>;
using D32 = hn::Repartition<int32_t, D8>;
constexpr D8 d8;
constexpr D32 d32;
using V8 = hn::Vec<D8>;
using V32 = hn::Vec<D32>;
constexpr int kLanes8 = static_cast<int>(hn::MaxLanes(d8));
constexpr int kLanes32 = static_cast<int>(hn::MaxLanes(d32));

// Registers: AVX-512 and NEON have 32, the others 16. Accumulators of one pass leave room for codes and operands.
constexpr int kMaxAccumulators = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM ? 16 : 8;

// ------------------------------------------------------------------ unpacking

// Codes kIndex.. of a plane of kWidth bits, plus `extra` bytes further in the same field.
template <int kWidth, int kIndex>
HWY_INLINE V8 PlaneCodes(const uint8_t* HWY_RESTRICT plane, int extra) {
  constexpr int kBytes = 128 * kWidth;
  constexpr int kShift = kIndex / kBytes * kWidth;
  const V8 bytes = hn::LoadU(d8, plane + kIndex % kBytes + extra);
  if constexpr (kWidth == 8) {
    return bytes;
  } else {
    const hn::Repartition<uint16_t, D8> d16;
    const V8 mask = hn::Set(d8, static_cast<uint8_t>((1 << kWidth) - 1));
    if constexpr (kShift == 0) return hn::And(bytes, mask);
    return hn::And(hn::BitCast(d8, hn::ShiftRight<kShift>(hn::BitCast(d16, bytes))), mask);
  }
}

// Levels of the codes at kIndex + extra of a tile of kBits bits; `table` is used up to 4 bits when kTable.
template <int kBits, bool kTable, int kIndex>
HWY_INLINE V8 Levels(const uint8_t* HWY_RESTRICT tile, int extra, V8 table) {
  constexpr int kWidth0 = TilePlane0Bits(kBits);
  constexpr int kWidth1 = TilePlane1Bits(kBits);
  V8 codes = PlaneCodes<kWidth0, kIndex>(tile, extra);
  if constexpr (kWidth1 != 0) {
    const V8 high = PlaneCodes<kWidth1, kIndex>(tile + TileBytes(kWidth0), extra);
    const hn::Repartition<uint16_t, D8> d16;  // codes stay within their bytes: the shift cannot cross
    codes = hn::Or(codes, hn::BitCast(d8, hn::ShiftLeft<kWidth0>(hn::BitCast(d16, high))));
  }
  if constexpr (kTable && kBits <= 4) codes = hn::TableLookupBytes(table, codes);
  return codes;
}

HWY_INLINE V8 LoadTable(const TileLevels* levels, int bits) {
  return levels && bits <= 4 ? hn::LoadDup128(d8, levels->by_bits[bits]) : hn::Zero(d8);
}

// Four bytes in every 32-bit lane.
HWY_INLINE hn::Vec<hn::Repartition<int8_t, D8>> BroadcastQuad(const int8_t* HWY_RESTRICT quad) {
  int32_t word;
  hwy::CopyBytes<4>(quad, &word);
  return hn::BitCast(hn::Repartition<int8_t, D8>(), hn::Set(d32, word));
}

// ------------------------------------------------------------------ score

struct ScoreArgs {
  const TileMatrix* m;
  const int8_t* q;  // [columns][num_tiles * 16], first column of this pass
  int32_t* sums;    // [columns][64]
  int first_tile;
  int last_tile;
};

// Adds one quad of channels to kVectors vectors of tokens from kToken on, for kColumns columns.
template <int kBits, bool kTable, int kToken, int kVectors, int kColumns, int kQuad>
HWY_INLINE void ScoreQuad(const uint8_t* HWY_RESTRICT tile, const int8_t* HWY_RESTRICT q, size_t stride, V8 table,
                          V32 (&acc)[kColumns][kVectors]) {
  constexpr int kIndex = (kQuad * 64 + kToken) * 4;
  V8 levels[kVectors];
  levels[0] = Levels<kBits, kTable, kIndex>(tile, 0, table);
  if constexpr (kVectors > 1) levels[1] = Levels<kBits, kTable, kIndex + kLanes8>(tile, 0, table);
  if constexpr (kVectors > 2) levels[2] = Levels<kBits, kTable, kIndex + 2 * kLanes8>(tile, 0, table);
  if constexpr (kVectors > 3) levels[3] = Levels<kBits, kTable, kIndex + 3 * kLanes8>(tile, 0, table);
  for (int col = 0; col < kColumns; ++col) {
    const auto query = BroadcastQuad(q + static_cast<size_t>(col) * stride + kQuad * 4);
    for (int v = 0; v < kVectors; ++v) acc[col][v] = DotBytes(acc[col][v], levels[v], query);
  }
}

template <int kBits, bool kTable, int kToken, int kVectors, int kColumns>
HWY_NOINLINE void ScorePass(const ScoreArgs& args, const std::byte* packed) {
  const V8 table = LoadTable(args.m->levels, kBits);
  const size_t stride = static_cast<size_t>(args.m->num_tiles) * kTileChannels;
  V32 acc[kColumns][kVectors];
  for (int col = 0; col < kColumns; ++col) {
    for (int v = 0; v < kVectors; ++v) acc[col][v] = hn::LoadU(d32, args.sums + col * 64 + kToken + v * kLanes32);
  }
  const uint8_t* tile = reinterpret_cast<const uint8_t*>(packed);
  for (int i = args.first_tile; i < args.last_tile; ++i, tile += TileBytes(kBits)) {
    const int8_t* q = args.q + i * kTileChannels;
    ScoreQuad<kBits, kTable, kToken, kVectors, kColumns, 0>(tile, q, stride, table, acc);
    ScoreQuad<kBits, kTable, kToken, kVectors, kColumns, 1>(tile, q, stride, table, acc);
    ScoreQuad<kBits, kTable, kToken, kVectors, kColumns, 2>(tile, q, stride, table, acc);
    ScoreQuad<kBits, kTable, kToken, kVectors, kColumns, 3>(tile, q, stride, table, acc);
  }
  for (int col = 0; col < kColumns; ++col) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(acc[col][v], d32, args.sums + col * 64 + kToken + v * kLanes32);
  }
}

// Tokens kToken..kEnd-1 in passes whose accumulators fit the registers.
template <int kBits, bool kTable, int kColumns, int kToken, int kEnd>
HWY_INLINE void ScoreTokens(const ScoreArgs& args, const std::byte* packed) {
  if constexpr (kToken < kEnd) {
    constexpr int kLeft = (kEnd - kToken) / kLanes32;
    constexpr int kFit = kMaxAccumulators / kColumns;
    constexpr int kVectors = kLeft < kFit ? kLeft : kFit < 4 ? kFit : 4;
    ScorePass<kBits, kTable, kToken, kVectors, kColumns>(args, packed);
    ScoreTokens<kBits, kTable, kColumns, kToken + kVectors * kLanes32, kEnd>(args, packed);
  }
}

template <int kBits, bool kTable, int kColumns>
HWY_INLINE void ScoreRange(const ScoreArgs& args, const std::byte* packed, int first_token, int last_token) {
  if (first_token == 0 && last_token == 64) return ScoreTokens<kBits, kTable, kColumns, 0, 64>(args, packed);
  if (first_token < 32) ScoreTokens<kBits, kTable, kColumns, 0, 32>(args, packed);
  if (last_token > 32) ScoreTokens<kBits, kTable, kColumns, 32, 64>(args, packed);
}

template <int kBits, bool kTable>
HWY_INLINE void ScoreColumns(ScoreArgs args, const std::byte* packed, int columns, int first_token, int last_token) {
  const auto advance = [&](int count) {
    args.q += static_cast<size_t>(count) * static_cast<size_t>(args.m->num_tiles) * kTileChannels;
    args.sums += count * 64;
    columns -= count;
  };
  for (; columns >= 4; advance(4)) ScoreRange<kBits, kTable, 4>(args, packed, first_token, last_token);
  if (columns >= 2) {
    ScoreRange<kBits, kTable, 2>(args, packed, first_token, last_token);
    advance(2);
  }
  if (columns == 1) ScoreRange<kBits, kTable, 1>(args, packed, first_token, last_token);
}

template <int kBits>
void ScoreBits(const ScoreArgs& args, const std::byte* packed, int columns, int first_token, int last_token) {
  if (kBits <= 4 && args.m->levels) {
    ScoreColumns<kBits, kBits <= 4>(args, packed, columns, first_token, last_token);
  } else {
    ScoreColumns<kBits, false>(args, packed, columns, first_token, last_token);
  }
}

// Calls work(bits, first_tile, last_tile, packed) for each stretch of tiles of one width.
template <typename Work>
HWY_INLINE void ForEachStretch(const TileMatrix& m, const Work& work) {
  const std::byte* packed = m.packed;
  for (int first = 0; first < m.num_tiles;) {
    const int bits = m.bits[first];
    int last = first + 1;
    while (last < m.num_tiles && m.bits[last] == bits) ++last;
    if (bits != 0) work(bits, first, last, packed);
    packed += TileBytes(bits) * static_cast<size_t>(last - first);
    first = last;
  }
}

using ScoreFunction = void (*)(const ScoreArgs&, const std::byte*, int, int, int);
constexpr ScoreFunction kScore[9] = {nullptr,      ScoreBits<1>, ScoreBits<2>, ScoreBits<3>, ScoreBits<4>,
                                     nullptr,      ScoreBits<6>, nullptr,      ScoreBits<8>};

void Score(const TileMatrix& m, const int8_t* q, int columns, int first_token, int last_token, int32_t* sums) {
  for (int col = 0; col < columns; ++col) {
    for (int t = first_token; t < last_token; t += kLanes32) hn::StoreU(hn::Zero(d32), d32, sums + col * 64 + t);
  }
  ForEachStretch(m, [&](int bits, int first, int last, const std::byte* packed) {
    kScore[bits]({&m, q, sums, first, last}, packed, columns, first_token, last_token);
  });
}

// ------------------------------------------------------------------ accumulate

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

// ------------------------------------------------------------------ pack and unpack

// Plane of kWidth bits from 1,024 ordered codes, whose bits from kShift on belong to it.
template <int kWidth, int kShift>
HWY_INLINE void PackPlane(const uint8_t* HWY_RESTRICT ordered, uint8_t* HWY_RESTRICT plane) {
  constexpr int kBytes = 128 * kWidth;
  const hn::Repartition<uint16_t, D8> d16;
  const V8 mask = hn::Set(d8, static_cast<uint8_t>((1 << kWidth) - 1));
  for (int k = 0; k < kBytes; k += kLanes8) {
    V8 bytes = hn::Zero(d8);
    for (int f = 8 / kWidth - 1; f >= 0; --f) {
      const V8 codes = hn::BitCast(d8, hn::ShiftRight<kShift>(hn::BitCast(d16, hn::LoadU(d8, ordered + f * kBytes + k))));
      if constexpr (kWidth < 8) bytes = hn::BitCast(d8, hn::ShiftLeft<kWidth % 8>(hn::BitCast(d16, bytes)));
      bytes = hn::Or(bytes, hn::And(codes, mask));
    }
    hn::StoreU(bytes, d8, plane + k);
  }
}

template <int kBits>
void PackOrdered(const uint8_t* ordered, uint8_t* packed) {
  constexpr int kWidth0 = TilePlane0Bits(kBits);
  PackPlane<kWidth0, 0>(ordered, packed);
  if constexpr (TilePlane1Bits(kBits) != 0) {
    PackPlane<TilePlane1Bits(kBits), kWidth0>(ordered, packed + TileBytes(kWidth0));
  }
}

template <int kBits, int kIndex = 0>
void UnpackOrdered(const uint8_t* packed, uint8_t* ordered) {
  if constexpr (kIndex < kTileCodes) {
    hn::StoreU(Levels<kBits, false, kIndex>(packed, 0, hn::Zero(d8)), d8, ordered + kIndex);
    UnpackOrdered<kBits, kIndex + kLanes8>(packed, ordered);
  }
}

using ByteFunction = void (*)(const uint8_t*, uint8_t*);
constexpr ByteFunction kPack[9] = {nullptr, PackOrdered<1>, PackOrdered<2>, PackOrdered<3>, PackOrdered<4>,
                                   nullptr, PackOrdered<6>, nullptr,        PackOrdered<8>};
constexpr ByteFunction kUnpack[9] = {nullptr, UnpackOrdered<1>, UnpackOrdered<2>, UnpackOrdered<3>, UnpackOrdered<4>,
                                     nullptr, UnpackOrdered<6>, nullptr,          UnpackOrdered<8>};

// Between rows of codes and the order of a tile; words of four codes move where four are neighbours in both.
void OrderCodes(TileOrder order, const uint8_t* codes, size_t stride, uint8_t* ordered) {
  if (order == TileOrder::kTokenLane) {
    for (int t = 0; t < 64; ++t) {
      for (int quad = 0; quad < 4; ++quad) {
        hwy::CopyBytes<4>(codes + static_cast<size_t>(t) * stride + quad * 4, ordered + (quad * 64 + t) * 4);
      }
    }
    return;
  }
  for (int t = 0; t < 64; ++t) {
    const uint8_t* row = codes + static_cast<size_t>(t) * stride;
    uint8_t* out = ordered + t / 4 * 64 + t % 4;
    for (int c = 0; c < kTileChannels; ++c) out[c * 4] = row[c];
  }
}

void RestoreCodes(TileOrder order, const uint8_t* ordered, uint8_t* codes, size_t stride) {
  if (order == TileOrder::kTokenLane) {
    for (int t = 0; t < 64; ++t) {
      for (int quad = 0; quad < 4; ++quad) {
        hwy::CopyBytes<4>(ordered + (quad * 64 + t) * 4, codes + static_cast<size_t>(t) * stride + quad * 4);
      }
    }
    return;
  }
  for (int t = 0; t < 64; ++t) {
    uint8_t* row = codes + static_cast<size_t>(t) * stride;
    const uint8_t* in = ordered + t / 4 * 64 + t % 4;
    for (int c = 0; c < kTileChannels; ++c) row[c] = in[c * 4];
  }
}

void Pack(TileOrder order, const uint8_t* bits, int num_tiles, const uint8_t* codes, std::byte* packed) {
  alignas(64) uint8_t ordered[kTileCodes];
  const size_t stride = static_cast<size_t>(num_tiles) * kTileChannels;
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    if (bits[tile] == 0) continue;
    OrderCodes(order, codes + tile * kTileChannels, stride, ordered);
    kPack[bits[tile]](ordered, reinterpret_cast<uint8_t*>(packed));
  }
}

void Unpack(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, uint8_t* codes) {
  alignas(64) uint8_t ordered[kTileCodes];
  const size_t stride = static_cast<size_t>(num_tiles) * kTileChannels;
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    if (bits[tile] == 0) {
      hwy::ZeroBytes<kTileCodes>(ordered);
    } else {
      kUnpack[bits[tile]](reinterpret_cast<const uint8_t*>(packed), ordered);
    }
    RestoreCodes(order, ordered, codes + tile * kTileChannels, stride);
  }
}

const TileKernels* Kernels() {
  static constexpr TileKernels kKernels = {Score, Accumulate, Pack, Unpack};
  return &kKernels;
}

#endif  // HWY_SCALAR

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const TileKernels& GetTileKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
