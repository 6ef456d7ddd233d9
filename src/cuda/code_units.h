// Codes of one unit of a block in fragment order as a lane holds them, and how they become the halves of its operands: by
// arithmetic or by a table of pairs. W holds the warp's instructions: simt.cuh on the device, simt_host.h in tests.
//
// All members are for one lane; everything is unrolled, so indices of register arrays are constants.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.h"
#include "cuda/fragment_order.h"

namespace kvant::cuda {

struct alignas(16) Words4 {
  uint32_t word[4];
};

/// The words of one unit of a plane.
template <int kDim, int kWidth>
struct PlaneWords {
  static constexpr int kCount = UnitWords(kDim, kWidth);
  static constexpr int kVector = VectorWords(kDim, kWidth);
  struct alignas(4 * kVector) Vector {
    uint32_t word[kVector];
  };
  uint32_t word[kCount];

  KVANT_HD void Load(const std::byte* plane, int unit, int lane) {
    const std::byte* mine = plane + 4 * kVector * lane;  // the rest of the address is known when this is compiled
    KVANT_UNROLL
    for (int i = 0; i < kCount / kVector; ++i) {
      const Vector v = *reinterpret_cast<const Vector*>(mine + 4 * PlaneWord(kDim, kWidth, unit, 0, i * kVector));
      KVANT_UNROLL
      for (int j = 0; j < kVector; ++j) word[i * kVector + j] = v.word[j];
    }
  }
};

/// Codes of three bits: a plane of the low two, then one of the highest.
template <int kDim>
struct ThreeBitPlanes {
  PlaneWords<kDim, 2> low;
  PlaneWords<kDim, 1> high;

  KVANT_HD void Load(const std::byte* codes, int unit, int lane) {
    low.Load(codes, unit, lane);
    high.Load(codes + PlaneBytes(kDim, 2), unit, lane);
  }
};

// ---- codes to halves by arithmetic

/// A field of codes as the low mantissa bits of halves: base + code / 4. Where the field lies in the mantissa decides the
/// base; fields beyond the mantissa are shifted down first, several at a time.
struct Magic {
  int shift;  ///< of the word
  int bit;    ///< position in the mantissa after the shift

  KVANT_HD static constexpr Magic Of(int width, int field) {
    const int bit = width * field;
    const int room = width >= 4 ? 8 : 10;  // after this shift the remaining fields fit the mantissa
    return bit + width <= 10 ? Magic{0, bit} : Magic{room, bit - room};
  }
  /// 2^(8 - bit) in both halves.
  KVANT_HD constexpr uint32_t base() const { return static_cast<uint32_t>(15 + 8 - bit) * 0x04000400u; }
  KVANT_HD constexpr uint32_t mask(int width) const { return (((1u << width) - 1) << bit) * 0x00010001u; }
};

/// Uniform codes of one unit; Pair gives base + code / 4 in both halves.
template <class W, int kDim, int kBits>
class UniformUnit {
 public:
  KVANT_HD void Load(const std::byte* codes, int unit, int lane) { plane_.Load(codes, unit, lane); }
  KVANT_HD static constexpr uint32_t Base(int step, int reg) {
    return Magic::Of(kBits, FieldOf(kDim, kBits, step, reg).index).base();
  }
  KVANT_HD uint32_t Pair(int step, int reg) const { return Pair(step, reg, Base(step, reg)); }
  /// The same codes as halves too small for an exponent: code * 2^(bit - 24), with nothing added.
  KVANT_HD uint32_t SmallPair(int step, int reg) const { return Pair(step, reg, 0); }
  KVANT_HD static constexpr int Bit(int step, int reg) {
    return Magic::Of(kBits, FieldOf(kDim, kBits, step, reg).index).bit;
  }

 private:
  static_assert(kBits == 2 || kBits == 4 || kBits == 8);
  KVANT_HD uint32_t Pair(int step, int reg, uint32_t base) const {
    const Field field = FieldOf(kDim, kBits, step, reg);
    const Magic magic = Magic::Of(kBits, field.index);
    return W::MaskOr(plane_.word[field.word] >> magic.shift, magic.mask(kBits), base);
  }
  PlaneWords<kDim, kBits> plane_;
};

template <class W, int kDim>
class UniformUnit<W, kDim, 3> {
 public:
  KVANT_HD void Load(const std::byte* codes, int unit, int lane) { planes_.Load(codes, unit, lane); }
  /// Four fields share a shift; each has its place in the mantissa.
  KVANT_HD static constexpr uint32_t Base(int step, int) { return Magic{0, 2 * (step % 4)}.base(); }
  KVANT_HD uint32_t Pair(int step, int reg) const { return Pair(step, reg, Base(step, reg)); }
  KVANT_HD uint32_t SmallPair(int step, int reg) const { return Pair(step, reg, 0); }
  KVANT_HD static constexpr int Bit(int step, int) { return 2 * (step % 4); }

 private:
  KVANT_HD uint32_t Pair(int step, int reg, uint32_t base) const {
    const Field low = FieldOf(kDim, 2, step, reg);
    const Field high = FieldOf(kDim, 1, step, reg);
    const int bit = Bit(step, reg);
    const uint32_t word = planes_.high.word[high.word];
    const int group = high.index / 4;
    const uint32_t top = group == 0 ? word << 2 : group == 1 ? word << 1 : group == 2 ? word >> 6 : word >> 7;
    const uint32_t codes = W::MaskOr(planes_.low.word[low.word] >> (low.index / 4 * 8), 0x00030003u << bit, base);
    return W::MaskOr(top, 0x00040004u << bit, codes);
  }

  ThreeBitPlanes<kDim> planes_;
};

// ---- codes to halves by table

/// No table.
struct NoTable {
  static constexpr int kBytes = 0;
};

/// Fills a table in shared memory, words [entries][32 lanes]: every lane has a column of its own (W::Column), so no bank is
/// met twice. pair(entry) gives two levels.
template <class Pair>
KVANT_HD void FillTable(int entries, int thread, int threads, std::byte* table, Pair pair) {
  constexpr int kVectors = kLanes / 4;
  for (int i = thread; i < entries * kVectors; i += threads) {
    const uint32_t word = pair(i / kVectors);
    reinterpret_cast<Words4*>(table)[i] = {{word, word, word, word}};
  }
}

/// Levels by two codes.
template <int kBits>
struct PairTable {
  static constexpr int kEntries = 1 << (2 * kBits);
  static constexpr int kBytes = kEntries * kLanes * 4;

  template <class W>
  KVANT_HD static void Fill(const float* levels, int thread, int threads, std::byte* table) {
    FillTable(kEntries, thread, threads, table,
              [levels](int entry) { return W::Pack(levels[entry & ((1 << kBits) - 1)], levels[entry >> kBits]); });
  }
};

/// Codes of one unit that are looked up; Pair gives two levels.
template <class W, int kDim, int kBits>
class LevelUnit {
 public:
  KVANT_HD void Load(const std::byte* codes, int unit, int lane) { plane_.Load(codes, unit, lane); }
  /// Whole bytes are shifted down, which several pairs share; a product does the rest of the shift and the sum.
  KVANT_HD uint32_t Pair(typename W::Column column, int step, int reg) const {
    const Field field = FieldOf(kDim, kBits, step, reg);
    const uint32_t word = plane_.word[field.word];
    if constexpr (kBits == 4) return W::Lookup(column, W::Byte(word, field.index), 128);
    const int first = 2 * kBits * field.index;
    const uint32_t index = W::MaskOr(word >> (first / 8 * 8), ((1u << 2 * kBits) - 1) << first % 8, 0);
    return W::Lookup(column, index, 128u >> first % 8);
  }

 private:
  static_assert(kBits == 2 || kBits == 4);
  PlaneWords<kDim, kBits> plane_;
};

template <class W, int kDim>
class LevelUnit<W, kDim, 3> {
 public:
  KVANT_HD void Load(const std::byte* codes, int unit, int lane) { groups_.Load(codes, unit, lane); }
  KVANT_HD uint32_t Pair(typename W::Column column, int step, int reg) const {
    const uint32_t* words = groups_.word + step / kTriplesPerGroup * 3;
    const int triple = step % kTriplesPerGroup;
    const uint32_t bits = triple < 3 ? words[triple < 3 ? triple : 0]
                                     : W::Bytes(W::Bytes(words[0], words[1], 3, 7, 3, 7), words[2], 0, 1, 7, 7);
    const int first = 6 * reg;
    return W::Lookup(column, W::MaskOr(bits >> (first / 8 * 8), 63u << first % 8, 0), 128u >> first % 8);
  }

 private:
  PlaneWords<kDim, 3> groups_;
};

}  // namespace kvant::cuda
