// Vectors of levels out of packed tiles of a trellis (trellis.h has their order). Not for HWY_SCALAR.
#if defined(KVANT_TRELLIS_LEVELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVANT_TRELLIS_LEVELS_INL_H_
#undef KVANT_TRELLIS_LEVELS_INL_H_
#else
#define KVANT_TRELLIS_LEVELS_INL_H_
#endif

#include "codec/parts/tile_codes-inl.h"
#include "codec/parts/trellis.h"
#include "hwy/highway.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {

using D16 = hn::Repartition<uint16_t, D8>;
using V16 = hn::Vec<D16>;
constexpr D16 d16;

// Levels by window, whose last 6 bits count. Highway 1.0.3 has no look-up in more than 16 bytes, so elsewhere than on
// AVX-512 with VBMI, which does it in one instruction, it takes four.
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
struct LevelTable {
  V8 all;

  explicit HWY_INLINE LevelTable(int bits) : all(hn::LoadU(d8, TrellisLevels(bits))) {}
  HWY_INLINE V8 operator()(V8 window) const { return V8{_mm512_permutexvar_epi8(window.raw, all.raw)}; }
};
#else
struct LevelTable {
  V8 part[4];

  explicit HWY_INLINE LevelTable(int bits) {
    for (int i = 0; i < 4; ++i) part[i] = hn::LoadDup128(d8, TrellisLevels(bits) + 16 * i);
  }
  HWY_INLINE V8 operator()(V8 window) const {
    const V8 low = hn::And(window, hn::Set(d8, uint8_t{15}));
    const auto odd = hn::Ne(hn::And(window, hn::Set(d8, uint8_t{16})), hn::Zero(d8));
    const auto upper = hn::Ne(hn::And(window, hn::Set(d8, uint8_t{32})), hn::Zero(d8));
    const V8 a = hn::IfThenElse(odd, hn::TableLookupBytes(part[1], low), hn::TableLookupBytes(part[0], low));
    const V8 b = hn::IfThenElse(odd, hn::TableLookupBytes(part[3], low), hn::TableLookupBytes(part[2], low));
    return hn::IfThenElse(upper, b, a);
  }
};
#endif

// The runs of a part (of a vector of them: parts have 64 bytes), a lane of 16 bits each, and the symbols before them.
template <TileOrder kOrder, int kBits>
class Runs {
 public:
  HWY_INLINE Runs() {}  // written out: an implicit one is not compiled for the target

  /// kSecond: of two parts that share bytes; `piece`: which vector of the part.
  template <int kSecond>
  HWY_INLINE void Load(const uint8_t* HWY_RESTRICT tile, int pair, int piece) {
    const uint8_t* HWY_RESTRICT from = tile + PartBytes(pair, piece);
    for (int i = 0; i < kWords; ++i) word_[i] = LoadWord<kSecond>(from, i);
    if constexpr (kBits % 2 == 1) top_ = LoadTop<kSecond>(from);
    before_ = LoadBefore<kSecond>(tile, pair, piece);
  }

  /// Levels of places 2 kPair and 2 kPair + 1 of every run: those of 4 channels of a token together (kTokenLane), or of 4
  /// tokens of a channel.
  template <int kPair>
  HWY_INLINE V8 Levels(const LevelTable& table) const {
    constexpr int kFirst = kBits * (6 - 2 * kPair);
    return table(Windows<kFirst % 8>(From<kFirst / 8>()));
  }

 private:
  static constexpr int kWords = kBits / 2;
  static constexpr int kPieces = 64 / kLanes8;
  static constexpr int PartBytes(int pair, int piece) { return pair * 64 * kBits + piece * kLanes8; }

  template <int kSecond>
  static HWY_INLINE V16 LoadWord(const uint8_t* HWY_RESTRICT from, int i) {
    return hn::BitCast(d16, hn::LoadU(d8, from + (kSecond * kWords + i) * 64));
  }
  template <int kSecond>
  static HWY_INLINE V16 LoadTop(const uint8_t* HWY_RESTRICT from) {
    const V16 both = hn::BitCast(d16, hn::LoadU(d8, from + 2 * kWords * 64));
    return kSecond ? hn::ShiftRight<8>(both) : hn::And(both, hn::Set(d16, 0x00FF));
  }
  // The last 8 or 16 bits of runs.
  template <int kSecond>
  static HWY_INLINE V16 LoadNewest(const uint8_t* HWY_RESTRICT tile, int pair, int piece) {
    const uint8_t* HWY_RESTRICT from = tile + PartBytes(pair, piece);
    if constexpr (kWords > 0) return LoadWord<kSecond>(from, 0);
    return LoadTop<kSecond>(from);
  }
  template <int kSecond>
  static HWY_INLINE V16 LoadBefore(const uint8_t* HWY_RESTRICT tile, int pair, int piece) {
    const V16 newest = LoadNewest<kSecond>(tile, pair, piece);
    if constexpr (kOrder == TileOrder::kTokenLane) {  // four lanes earlier
      return FourLanesBack(newest, LoadNewest<kSecond>(tile, pair, (piece + kPieces - 1) % kPieces));
    } else {  // every other lane of the same part, or of the part before
      const V16 part_before = LoadNewest<1 - kSecond>(tile, kSecond ? pair : 1 - pair, piece);
      return hn::BitCast(d16, hn::Or(hn::ShiftLeft<16>(hn::BitCast(d32u, newest)),
                                     hn::ShiftRight<16>(hn::BitCast(d32u, part_before))));
    }
  }
  static HWY_INLINE V16 FourLanesBack(V16 lanes, V16 lanes_before) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    return V16{_mm512_alignr_epi64(lanes.raw, lanes_before.raw, 7)};
#else
    V8 earlier = hn::BitCast(d8, lanes_before);
    if constexpr (kLanes8 == 32) earlier = hn::ConcatLowerUpper(d8, hn::BitCast(d8, lanes), earlier);
    return hn::BitCast(d16, hn::CombineShiftRightBytes<8>(d8, hn::BitCast(d8, lanes), earlier));
#endif
  }

  // 16 bits of every run from byte kByte on.
  template <int kByte>
  HWY_INLINE V16 From() const {
    if constexpr (kByte % 2 == 0) {
      return Word<kByte / 2>();
    } else {
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
      return V16{_mm512_shrdi_epi16(Word<kByte / 2>().raw, Word<kByte / 2 + 1>().raw, 8)};
#else
      return hn::Or(hn::ShiftRight<8>(Word<kByte / 2>()), hn::ShiftLeft<8>(Word<kByte / 2 + 1>()));
#endif
    }
  }
  template <int kIndex>
  HWY_INLINE V16 Word() const {
    if constexpr (kIndex < kWords) {
      return word_[kIndex];
    } else if constexpr (kBits % 2 == 1) {
      return hn::Or(top_, hn::ShiftLeft<8>(before_));
    } else {
      return before_;
    }
  }

  // Of 16 bits each, the windows at kShift (the second place) and kShift + kBits (the first), as bytes.
  template <int kShift>
  static HWY_INLINE V8 Windows(V16 bits) {
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
    return V8{_mm512_multishift_epi64_epi8(_mm512_set1_epi64(static_cast<int64_t>(Shifts(kShift))), bits.raw)};
#else
    const V16 first = hn::And(hn::ShiftRight<kShift + kBits>(bits), hn::Set(d16, 0x00FF));
    const V8 windows = hn::BitCast(d8, hn::Or(first, hn::And(hn::ShiftLeft<8 - kShift>(bits), hn::Set(d16, 0xFF00))));
    if constexpr (kOrder == TileOrder::kChannelLane) return windows;
    alignas(16) static constexpr uint8_t kByToken[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
    return hn::TableLookupBytes(windows, hn::LoadDup128(d8, kByToken));
#endif
  }
  // The first bit of each of 8 windows in four runs.
  static constexpr uint64_t Shifts(int shift) {
    uint64_t shifts = 0;
    for (int i = 0; i < 8; ++i) {
      const int run = kOrder == TileOrder::kTokenLane ? i % 4 : i / 2;
      const int second = kOrder == TileOrder::kTokenLane ? i / 4 : i % 2;
      shifts |= static_cast<uint64_t>(16 * run + shift + (second ? 0 : kBits)) << (8 * i);
    }
    return shifts;
  }

  static constexpr hn::RebindToUnsigned<D32> d32u = {};
  V16 word_[kWords > 0 ? kWords : 1];
  V16 top_;
  V16 before_;
};

// Elsewhere a pass over some of the tokens would repeat most of the work of the others.
constexpr bool kReadsTrellis = HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86;

// As CodeReader.
template <int kBits_>
struct TrellisReader {
  static constexpr int kBits = kBits_;
  static constexpr bool kTrellis = true;
  using Table = LevelTable;

  static HWY_INLINE Table LoadTable(const TileLevels*) { return LevelTable(kBits); }

  template <int kQuad, int kToken, int kVectors>
  static HWY_INLINE void Tokens(const uint8_t* HWY_RESTRICT tile, const Table& table, V8 (&levels)[kVectors]) {
    constexpr int kFirst = kToken / 16;
    Runs<TileOrder::kTokenLane, kBits> runs;
    runs.template Load<kQuad % 2>(tile, kQuad / 2, 0);
    levels[0] = runs.template Levels<kFirst>(table);
    if constexpr (kVectors > 1) levels[1] = runs.template Levels<kFirst + 1>(table);
    if constexpr (kVectors > 2) levels[2] = runs.template Levels<kFirst + 2>(table);
    if constexpr (kVectors > 3) levels[3] = runs.template Levels<kFirst + 3>(table);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();
#endif  // HWY_SCALAR

#endif  // toggle
