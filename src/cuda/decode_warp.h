// Decoding on the device, as what one warp does with one *unit* of a block (16 tokens): codes become operands as attention has
// them, those become fp16 rows in registers, and rows are put together in shared memory, from where they go to device memory
// as whole lines. For whatever wants rows: attention of many queries (prefill) by kernels that read fp16, or another cache.
//
// The inverse Hadamard transform of channel 16 s + k is one over the steps s, additions of halves, and one over k, a matrix
// product with +1 and -1. Levels are multiples of 1/2 up to 127: sums of 8 are exact in fp16, and products are summed in fp32.
#pragma once

#include "cuda/block_readers.h"
#include "cuda/prepare_merge_warp.h"
#include "cuda/trellis_readers.h"
#include "cuda/unit_rows.h"

namespace kvant::cuda {

/// The token of a row g or g + 8, after values have been transposed.
KVANT_HD constexpr int TokenOfRow(TokenOrder order, bool is_value, int row) {
  const int g = row % 8, half = row / 8;
  if (order == TokenOrder::kUnits) return row;
  return is_value ? g / 2 * 4 + g % 2 + 2 * half : 2 * g + half;
}

/// Rows of a unit before they are stored; one per warp. Lanes of an operand's register meet no bank twice.
template <int kDim>
struct RowSpace {
  static constexpr int kStride = kDim / 2 + 4;  ///< words
  alignas(16) uint32_t word[kUnitTokens * kStride];

  /// A lane's register of an operand: row g or g + 8, channels 8 i + 2t and the next one.
  KVANT_HD void Put(int lane, int half, int i, uint32_t channels) {
    word[(lane / 4 + 8 * half) * kStride + 4 * i + lane % 4] = channels;
  }
  template <class W>
  KVANT_HD void PutAll(int lane, const UnitRows<kDim>& rows) {
    W::Sync();  // the rows before have been read
    KVANT_UNROLL
    for (int i = 0; i < kDim / 4; ++i) Put(lane, i % 2, i / 2, rows.word[i / 4][i % 4]);
  }
};

/// What a warp works on.
struct UnitPlace {
  int page;
  int head;
  int unit;
  int lane;

  /// Of the units of all pages and heads.
  KVANT_HD static UnitPlace Of(const DecodeParams& p, uint32_t index, int lane) {
    const uint32_t block = index / kUnits;
    const uint32_t page = block / static_cast<uint32_t>(p.kv_heads);
    return {static_cast<int>(page), static_cast<int>(block - page * static_cast<uint32_t>(p.kv_heads)),
            static_cast<int>(index % kUnits), lane};
  }
};

// ---- codes that are looked up

template <class W, CodeKind kKind, int kDim, int kBits>
struct LevelRows {
  using Table = PairTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kUnits;

  KVANT_HD static void Load(const std::byte* codes, const std::byte* table, bool is_value, const UnitPlace& at,
                            UnitRows<kDim>* rows) {
    LevelUnit<W, kDim, kBits> unit;
    unit.Load(codes, at.unit, at.lane);
    const typename W::Column column = W::ColumnOf(table, at.lane);
    KVANT_UNROLL
    for (int i = 0; i < kDim / 4; ++i) rows->word[i / 4][i % 4] = unit.Pair(column, i / 4, i % 4);
    if (is_value) rows->template Transpose<W>();
  }
};

template <class W, int kDim, int kBits>
struct LevelRows<W, CodeKind::kTrellis, kDim, kBits> {
  using Table = TrellisTable<kBits>;
  static constexpr TokenOrder kOrder = TokenOrder::kRuns;

  KVANT_HD static void Load(const std::byte* codes, const std::byte* table, bool is_value, const UnitPlace& at,
                            UnitRows<kDim>* rows) {
    if (is_value) {
      LoadRuns<ValueStep>(codes, table, at.lane / 4 * 4 + (at.lane + 3) % 4, at, rows);
      rows->template Transpose<W>();
    } else {
      LoadRuns<KeyStep>(codes, table, (at.lane + kLanes - 4) % kLanes, at, rows);
    }
  }

 private:
  using Stream = RunStream<W, kBits>;

  template <auto kStep>
  KVANT_HD static void LoadRuns(const std::byte* codes, const std::byte* table, int lane_before, const UnitPlace& at,
                                UnitRows<kDim>* rows) {
    using Words = RunWords<kBits>;
    const typename W::Column column = W::ColumnOf(table, at.lane);
    KVANT_UNROLL
    for (int first = 0; first < kDim / kStepChannels; first += Words::kSteps) {
      Words words, before;
      words.Load(codes, first, at.lane);
      before.Load(codes, first, lane_before);
      KVANT_UNROLL
      for (int s = 0; s < Words::kSteps; ++s) {
        kStep(words.word + s * kBits, before.word + s * kBits, column, at.unit, rows->word[first + s]);
      }
    }
  }
  /// A look-up gives two tokens of one channel, an operand takes two channels of one token.
  KVANT_HD static void KeyStep(const uint32_t* words, const uint32_t* before, typename W::Column column, int unit,
                               uint32_t (&to)[4]) {
    KVANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint32_t even = Stream(words, 2 * half, before, 2 * half).Levels(column, unit);
      const uint32_t odd = Stream(words, 2 * half + 1, before, 2 * half + 1).Levels(column, unit);
      to[2 * half] = LowHalves<W>(even, odd);
      to[2 * half + 1] = HighHalves<W>(even, odd);
    }
  }
  KVANT_HD static void ValueStep(const uint32_t* words, const uint32_t* before, typename W::Column column, int unit,
                                 uint32_t (&to)[4]) {
    to[0] = Stream(words, 0, before, 1).Levels(column, unit);
    to[1] = Stream(words, 2, before, 3).Levels(column, unit);
    to[2] = Stream(words, 1, words, 0).Levels(column, unit);
    to[3] = Stream(words, 3, words, 2).Levels(column, unit);
  }
};

/// The inverse of a row's map: unnormalised Hadamard transform, then signs.
template <class W, int kDim>
class UnitMap {
 public:
  static constexpr int kSteps = kDim / kStepChannels;
  static constexpr int kSummed = kSteps < 8 ? kSteps : 8;  ///< steps that halves sum up without rounding

  KVANT_HD explicit UnitMap(int lane) {
    const int g = lane / 4, t = lane % 4;
    uint32_t column = 0;
    KVANT_UNROLL
    for (int h = 0; h < 2; ++h) column |= (W::CountBits((2 * t + h) & g) % 2 == 0 ? 0x3C00u : 0xBC00u) << (16 * h);
    KVANT_UNROLL
    for (int i = 0; i < 2 * kSteps; ++i) columns_[i] = column ^ (DeviceHadamardSign(8 * i + g) < 0.0f ? kMinus : 0);
  }
  KVANT_HD static void SumSteps(UnitRows<kDim>* rows) {
    KVANT_UNROLL
    for (int stride = 1; stride < kSummed; stride *= 2) {
      KVANT_UNROLL
      for (int i = 0; i < kSteps * 4; ++i) {
        if ((i / 4 & stride) != 0) continue;
        uint32_t* a = &rows->word[i / 4][i % 4];
        uint32_t* b = &rows->word[i / 4 + stride][i % 4];
        const uint32_t sum = W::Add(*a, *b);
        *b = W::Subtract(*a, *b);
        *a = sum;
      }
    }
  }
  /// Channels 8 i .. 8 i + 7 of the result: C of a product.
  KVANT_HD void Product(const UnitRows<kDim>& rows, int i, float (&c)[4]) const {
    KVANT_UNROLL
    for (int j = 0; j < 4; ++j) c[j] = 0.0f;
    KVANT_UNROLL
    for (int part = 0; part < kSteps / kSummed; ++part) {
      const uint32_t b = columns_[i] ^ ((part & i / 2 / kSummed) != 0 ? kMinus : 0);
      W::Product(c, rows.word[part * kSummed + i / 2 % kSummed], b, i % 2 == 0 ? b : b ^ kMinus);
    }
  }

 private:
  static constexpr uint32_t kMinus = 0x80008000u;
  uint32_t columns_[2 * kSteps];  ///< operand B for channels 8 i + g; the rows 8 to 15 differ by a sign at most
};

/// Levels to rows: mapped back, times the tokens' scales, plus the page's means.
template <class W, int kDim>
KVANT_HD void MapRows(const DecodeParams& p, const std::byte* block, TokenOrder order, const UnitPlace& at,
                      const UnitMap<W, kDim>& map, UnitRows<kDim>* rows, RowSpace<kDim>* space) {
  const auto* scales = reinterpret_cast<const uint16_t*>(block + p.offsets.scales);
  float gain[2];
  KVANT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = at.lane / 4 + 8 * half;
    const int token = at.unit * kUnitTokens + TokenOfRow(order, p.is_value, row);
    gain[half] = W::HalfToFloat(scales[TokenParam(order, token)]) * (p.step * HadamardNorm<kDim>());
  }
  ChannelWords<kDim> means = {};
  if (p.offsets.shifts >= 0) means.LoadParams(block + p.offsets.shifts, at.lane);
  map.SumSteps(rows);
  W::Sync();  // the rows before have been read
  KVANT_UNROLL
  for (int i = 0; i < kDim / 8; ++i) {
    float c[4], mean[2];
    map.Product(*rows, i, c);
    W::Unpack(means.word[i], &mean[0], &mean[1]);
    KVANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      space->Put(at.lane, half, i, W::Pack(c[2 * half] * gain[half] + mean[0], c[2 * half + 1] * gain[half] + mean[1]));
    }
  }
}

// ---- uniform codes

/// Scales and shifts of a lane's tokens for some steps, in both halves of a word: row of parameters `group`.
template <class W, int kDim>
KVANT_HD void TokenWords(const DecodeParams& p, const std::byte* params, int group, const UnitPlace& at,
                         uint32_t (&out)[2]) {
  KVANT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int token = at.unit * kUnitTokens + at.lane / 4 + 8 * half;
    const int index = group * kPageTokens + TokenParamOf(TokenOrder::kUnits, kDim, p.param_rows, token);
    out[half] = reinterpret_cast<const uint16_t*>(params)[index] * 0x00010001u;
  }
}

/// Codes are halves without rounding; with parameters that are halves a result is rounded once.
template <class W, int kDim, int kBits>
KVANT_HD void UniformRows(const DecodeParams& p, const std::byte* block, const UnitPlace& at, UnitRows<kDim>* rows) {
  constexpr uint32_t kFour = 0x44004400u;
  constexpr uint32_t kMinusFour = 0x88008800u;  // times a base: other sign, exponent greater by two
  constexpr int kSteps = kDim / kStepChannels;
  UniformUnit<W, kDim, kBits> unit;
  unit.Load(block + p.offsets.codes, at.unit, at.lane);
  KVANT_UNROLL
  for (int i = 0; i < 4 * kSteps; ++i) {
    const uint32_t base = unit.Base(i / 4, i % 4);
    rows->word[i / 4][i % 4] = W::MultiplyAdd(unit.Pair(i / 4, i % 4), kFour, base + kMinusFour);
  }
  const std::byte* scales = block + p.offsets.scales;
  const std::byte* shifts = block + p.offsets.shifts;
  if (p.is_value) {
    rows->template Transpose<W>();
    uint32_t scale[2], shift[2];
    KVANT_UNROLL
    for (int i = 0; i < 4 * kSteps; ++i) {
      const int group = i / 4 * p.param_rows;  // in steps
      if (i % 4 == 0 && group % kSteps == 0) {
        TokenWords<W, kDim>(p, scales, group / kSteps, at, scale);
        TokenWords<W, kDim>(p, shifts, group / kSteps, at, shift);
      }
      uint32_t& word = rows->word[i / 4][i % 4];
      word = W::MultiplyAdd(word, scale[i % 2], shift[i % 2]);
    }
  } else {
    const int group = at.unit * p.param_rows / kUnits;
    ChannelWords<kDim> scale, shift;
    scale.LoadParams(scales + group * kDim * 2, at.lane);
    shift.LoadParams(shifts + group * kDim * 2, at.lane);
    KVANT_UNROLL
    for (int i = 0; i < 4 * kSteps; ++i) {
      uint32_t& word = rows->word[i / 4][i % 4];
      word = W::MultiplyAdd(word, scale.word[i / 2], shift.word[i / 2]);
    }
  }
}

// ---- exact rows

template <class W, int kDim>
KVANT_HD void ExactRows(const DecodeParams& p, const std::byte* block, const UnitPlace& at, UnitRows<kDim>* rows) {
  PlaneWords<kDim, 16> words;
  words.Load(block, at.unit, at.lane);
  KVANT_UNROLL
  for (int i = 0; i < kDim / 4; ++i) rows->word[i / 4][i % 4] = words.word[i];
  if (p.is_value) rows->template Transpose<W>();
}

// ---- one unit

/// Whole rows to device memory, 16 bytes for a lane.
template <class W, int kDim>
KVANT_HD void StoreRows(const DecodeParams& p, TokenOrder order, const UnitPlace& at, const RowSpace<kDim>& space) {
  constexpr int kParts = kDim / 8;  // of a row
  constexpr int kStep = kLanes / kParts;
  W::Sync();
  const int64_t first = (static_cast<int64_t>(at.page) * kPageTokens + at.unit * kUnitTokens) * p.kv_heads + at.head;
  uint16_t* to = p.rows + first * kDim + at.lane % kParts * 8;
  KVANT_UNROLL
  for (int r = 0; r < kUnitTokens; r += kStep) {
    const int row = r + at.lane / kParts;
    const int token = TokenOfRow(order, p.is_value, row);
    *reinterpret_cast<Words4*>(to + token * p.kv_heads * kDim) =
        *reinterpret_cast<const Words4*>(space.word + row * space.kStride + at.lane % kParts * 4);
  }
}

/// A warp's part of the kernel: what all its units have in common, then unit after unit.
template <class W, CodeKind kKind, int kDim, int kBits>
class Decoder {
 public:
  using Table = typename LevelRows<W, kKind, kDim, kBits>::Table;

  KVANT_HD Decoder(const DecodeParams& p, const std::byte* table, RowSpace<kDim>* space, int lane)
      : p_(p), table_(table), space_(space), map_(lane) {}

  KVANT_HD void Decode(const UnitPlace& at) const {
    const int32_t slot = p_.slots[at.page];
    if (slot < 0) return;
    const std::byte* block = p_.pool + BlockOffset(slot, p_.slot_stride, at.head, p_.offsets.bytes);
    using Levels = LevelRows<W, kKind, kDim, kBits>;
    UnitRows<kDim> rows;
    Levels::Load(block + p_.offsets.codes, table_, p_.is_value, at, &rows);
    MapRows<W, kDim>(p_, block, Levels::kOrder, at, map_, &rows, space_);
    StoreRows<W, kDim>(p_, Levels::kOrder, at, *space_);
  }

 private:
  const DecodeParams& p_;
  const std::byte* table_;
  RowSpace<kDim>* space_;
  UnitMap<W, kDim> map_;
};

/// Codes that need neither table nor map.
template <class W, CodeKind kKind, int kDim, int kBits>
requires(kKind == CodeKind::kUniform || kKind == CodeKind::kExact) class Decoder<W, kKind, kDim, kBits> {
 public:
  using Table = NoTable;

  KVANT_HD Decoder(const DecodeParams& p, const std::byte*, RowSpace<kDim>* space, int) : p_(p), space_(space) {}

  KVANT_HD void Decode(const UnitPlace& at) const {
    const int32_t slot = p_.slots[at.page];
    if (slot < 0) return;
    const std::byte* block = p_.pool + BlockOffset(slot, p_.slot_stride, at.head, p_.offsets.bytes);
    UnitRows<kDim> rows;
    if constexpr (kKind == CodeKind::kUniform) {
      UniformRows<W, kDim, kBits>(p_, block, at, &rows);
    } else {
      ExactRows<W, kDim>(p_, block, at, &rows);
    }
    space_->template PutAll<W>(at.lane, rows);
    StoreRows<W, kDim>(p_, TokenOrder::kUnits, at, *space_);
  }

 private:
  const DecodeParams& p_;
  RowSpace<kDim>* space_;
};

}  // namespace kvant::cuda
