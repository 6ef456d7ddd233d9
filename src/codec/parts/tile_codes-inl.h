// Vectors of levels out of packed tiles; what score, accumulate and packing share. Not for HWY_SCALAR.
#if defined(KVANT_TILE_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVANT_TILE_CODES_INL_H_
#undef KVANT_TILE_CODES_INL_H_
#else
#define KVANT_TILE_CODES_INL_H_
#endif

#include "codec/parts/dot_bytes-inl.h"
#include "codec/parts/tile_kernels.h"
#include "hwy/highway.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {

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

// Codes at kIndex.. + extra of a tile of kBits bits.
template <int kBits, int kIndex>
HWY_INLINE V8 Codes(const uint8_t* HWY_RESTRICT tile, int extra) {
  constexpr int kWidth0 = TilePlane0Bits(kBits);
  constexpr int kWidth1 = TilePlane1Bits(kBits);
  V8 codes = PlaneCodes<kWidth0, kIndex>(tile, extra);
  if constexpr (kWidth1 != 0) {
    const V8 high = PlaneCodes<kWidth1, kIndex>(tile + TileBytes(kWidth0), extra);
    const hn::Repartition<uint16_t, D8> d16;  // codes stay within their bytes: the shift cannot cross
    codes = hn::Or(codes, hn::BitCast(d8, hn::ShiftLeft<kWidth0>(hn::BitCast(d16, high))));
  }
  return codes;
}

// The same as levels. Up to 4 bits there is always a look-up, in the identity if need be: it costs nothing beside the
// products, and a second copy of every kernel costs compile time.
template <int kBits, int kIndex>
HWY_INLINE V8 Levels(const uint8_t* HWY_RESTRICT tile, int extra, V8 table) {
  const V8 codes = Codes<kBits, kIndex>(tile, extra);
  if constexpr (kBits > 4) return codes;
  return hn::TableLookupBytes(table, codes);
}

HWY_INLINE V8 LoadTable(const TileLevels* levels, int bits) {
  alignas(16) static constexpr uint8_t kIdentity[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return hn::LoadDup128(d8, levels && bits <= 4 ? levels->by_bits[bits] : kIdentity);
}

// How kernels get vectors of levels from a tile of kBits bits that holds codes; trellis_levels-inl.h has the other way.
template <int kBits_>
struct CodeReader {
  static constexpr int kBits = kBits_;
  static constexpr bool kTrellis = false;
  using Table = V8;

  static HWY_INLINE Table LoadTable(const TileLevels* levels) { return HWY_NAMESPACE::LoadTable(levels, kBits); }

  /// kTokenLane: tokens kToken.. of the channels of a quad.
  template <int kQuad, int kToken, int kVectors>
  static HWY_INLINE void Tokens(const uint8_t* HWY_RESTRICT tile, const Table& table, V8 (&levels)[kVectors]) {
    constexpr int kIndex = (kQuad * 64 + kToken) * 4;
    static_assert(kVectors <= 4);
    levels[0] = Levels<kBits, kIndex>(tile, 0, table);
    if constexpr (kVectors > 1) levels[1] = Levels<kBits, kIndex + kLanes8>(tile, 0, table);
    if constexpr (kVectors > 2) levels[2] = Levels<kBits, kIndex + 2 * kLanes8>(tile, 0, table);
    if constexpr (kVectors > 3) levels[3] = Levels<kBits, kIndex + 3 * kLanes8>(tile, 0, table);
  }
};

// Four bytes in every 32-bit lane.
HWY_INLINE hn::Vec<hn::Repartition<int8_t, D8>> BroadcastQuad(const int8_t* HWY_RESTRICT quad) {
  int32_t word;
  hwy::CopyBytes<4>(quad, &word);
  return hn::BitCast(hn::Repartition<int8_t, D8>(), hn::Set(d32, word));
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

}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();
#endif  // HWY_SCALAR

#endif  // toggle
