#include <algorithm>
#include <bit>
#include <cstring>

#include "codec/vidkv/vidkv_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/vidkv/vidkv_kernels_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After highway.h.
#include "codec/parts/float16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant::vidkv {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using kvant::HWY_NAMESPACE::FromF16Words;
using kvant::HWY_NAMESPACE::ToF16Words;

using DF = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<DF>;
using D8 = hn::CappedTag<uint8_t, 64>;  // 64 bytes are a quad
using VF = hn::Vec<DF>;
using V8 = hn::Vec<D8>;
constexpr DF df;
constexpr DI di;
constexpr D8 d8;
constexpr hn::Rebind<uint8_t, DF> d8_of_f;
constexpr hn::Rebind<uint16_t, DF> d16_of_f;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));
constexpr int kBytes = static_cast<int>(hn::MaxLanes(d8));

void Split(const uint64_t* mask, const float* row, int count, float* set, float* clear) {
  for (int c = 0; c < count; c += kLanes) {
    const uint64_t bits = mask[c / 64] >> (c % 64) & ((uint64_t{1} << kLanes) - 1);
    const auto keep = hn::LoadMaskBits(df, reinterpret_cast<const uint8_t*>(&bits));
    const VF v = hn::LoadU(df, row + c);
    const int num_set = std::popcount(bits);
    hn::StoreU(hn::Compress(v, keep), df, set);
    hn::StoreU(hn::Compress(v, hn::Not(keep)), df, clear);
    set += num_set;
    clear += kLanes - num_set;
  }
}

// ------------------------------------------------------------------ encode

// Sum of magnitudes in the order SumOrder::kInSixteens.
HWY_INLINE float SumMagnitudes(const float* HWY_RESTRICT x, int n) {
  HWY_ALIGN float sums[16];
  for (int lane = 0; lane < 16; lane += kLanes) {
    VF sum = hn::Zero(df);
    for (int i = lane; i < n; i += 16) sum = hn::Add(sum, hn::Abs(hn::LoadU(df, x + i)));
    hn::Store(sum, df, sums + lane);
  }
  return AddSixteen(sums);
}

void RowSizes(const float* rows, int dim, float* sizes) {
  for (int t = 0; t < kTokensPerPage; ++t) sizes[t] = SumMagnitudes(rows + t * dim, dim);
}

// Trits of `count` tokens in the channels of one vector.
HWY_INLINE void TritsOfVector(const float* HWY_RESTRICT rows, int dim, const uint8_t* HWY_RESTRICT order, int count,
                              VF threshold, uint8_t* HWY_RESTRICT trits) {
  const auto one = hn::Set(di, 1);
  for (int i = 0; i < count; ++i) {
    const VF x = hn::LoadU(df, rows + order[i] * dim);
    const auto above = hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(x, threshold)), one);
    const auto below = hn::IfThenElseZero(hn::RebindMask(di, hn::Lt(x, hn::Neg(threshold))), one);
    hn::StoreU(hn::DemoteTo(d8_of_f, hn::Sub(hn::Add(one, above), below)), d8_of_f, trits + i * dim);
  }
}

void CodeTrits(const float* rows, int dim, const uint8_t* order, int count, float gamma, float stretch,
               uint16_t* scales, uint8_t* trits) {
  const VF zero = hn::Zero(df);
  for (int c = 0; c < dim; c += kLanes) {
    VF sum = zero;
    for (int i = 0; i < count; ++i) sum = hn::Add(sum, hn::Abs(hn::LoadU(df, rows + order[i] * dim + c)));
    const VF mean = hn::Div(sum, hn::Set(df, static_cast<float>(count)));
    const VF threshold = hn::Mul(hn::Set(df, gamma), mean);
    VF kept = zero;
    VF num_kept = zero;
    for (int i = 0; i < count; ++i) {
      const VF magnitude = hn::Abs(hn::LoadU(df, rows + order[i] * dim + c));
      const auto keep = hn::Gt(magnitude, threshold);
      kept = hn::Add(kept, hn::IfThenElseZero(keep, magnitude));
      num_kept = hn::Add(num_kept, hn::IfThenElseZero(keep, hn::Set(df, 1.0f)));
    }
    const VF scale = hn::Mul(hn::Set(df, stretch), hn::Div(kept, num_kept));
    const VF stored = hn::IfThenElseZero(hn::Gt(num_kept, zero), scale);
    hn::StoreU(ToF16Words(df, stored), d16_of_f, scales + c);
    TritsOfVector(rows + c, dim, order, count, threshold, trits + c);
  }
}

uint16_t CodeSalient(const float* row, const float* inverse, int dim, uint8_t* codes) {
  HWY_ALIGN float units[kMaxDim];
  for (int c = 0; c < dim; c += kLanes) {
    hn::Store(hn::Mul(hn::LoadU(df, row + c), hn::LoadU(df, inverse + c)), df, units + c);
  }
  const float mean = SumMagnitudes(units, dim) / static_cast<float>(dim);
  const F16 gain = ToF16(std::min(mean / kMeanOverScale, kF16Max));
  const VF threshold = hn::Set(df, ToFloat(gain) * kSalientThreshold);
  for (int c = 0; c < dim; c += kLanes) {
    const VF x = hn::Load(df, units + c);
    const auto outer = hn::RebindMask(di, hn::Gt(hn::Abs(x), threshold));
    const auto below = hn::IfThenElse(outer, hn::Zero(di), hn::Set(di, 1));
    const auto above = hn::IfThenElse(outer, hn::Set(di, 3), hn::Set(di, 2));
    const auto code = hn::IfThenElse(hn::RebindMask(di, hn::Lt(x, hn::Zero(df))), below, above);
    hn::StoreU(hn::DemoteTo(d8_of_f, code), d8_of_f, codes + c);
  }
  return gain.bits;
}

// ------------------------------------------------------------------ quads

template <class D>
HWY_INLINE hn::Vec<D> LoadQuad(D d, const QuadStream& stream, int quad, const std::byte* tiles, int part) {
  if (quad >= stream.num_quads) return hn::Zero(d);
  return hn::LoadU(d, reinterpret_cast<const uint8_t*>(tiles) + stream.tile_byte_ofs[quad] + part);
}

// ceil(value * 256 / 243) of a value to 242 is value + (value * 13 + 242) / 243, and for these dividends the division is
// the high half of a product with 270. A test goes through all values.
void PackTrits(const QuadStream& stream, const std::byte* tiles, uint8_t* out) {
  using D16 = hn::CappedTag<uint16_t, 32>;
  constexpr D16 d16;
  constexpr hn::Rebind<uint8_t, D16> d8_of_16;
  constexpr int kWords = static_cast<int>(hn::MaxLanes(d16));
  for (int k = 0; k < stream.rows(); ++k) {
    for (int part = 0; part < 64; part += kWords) {
      auto value = hn::Zero(d16);
      for (int f = 0; f < stream.fields; ++f) {
        const auto trit = LoadQuad(d8_of_16, stream, f * stream.rows() + k, tiles, part);
        value = hn::Add(hn::Add(value, hn::Add(value, value)), hn::PromoteTo(d16, trit));
      }
      const auto dividend = hn::Add(hn::Mul(value, hn::Set(d16, 13)), hn::Set(d16, 242));
      const auto byte = hn::Add(value, hn::MulHigh(dividend, hn::Set(d16, 270)));
      const hn::RebindToSigned<D16> signed16;
      hn::StoreU(hn::DemoteTo(d8_of_16, hn::BitCast(signed16, byte)), d8_of_16, out + k * 64 + part);
    }
  }
}

void PackPairs(const QuadStream& stream, const std::byte* tiles, uint8_t* out) {
  for (int k = 0; k < stream.rows(); ++k) {
    for (int part = 0; part < 64; part += kBytes) {
      V8 value = hn::Zero(d8);
      for (int f = stream.fields - 1; f >= 0; --f) {
        const V8 twice = hn::Add(value, value);
        value = hn::Add(hn::Add(twice, twice), LoadQuad(d8, stream, f * stream.rows() + k, tiles, part));
      }
      hn::StoreU(value, d8, out + k * 64 + part);
    }
  }
}

void Pack(const ValueState& s, const std::byte* tiles, std::byte* block) {
  PackTrits(s.trits, tiles, reinterpret_cast<uint8_t*>(block + s.trits.byte_ofs));
  PackPairs(s.salient, tiles, reinterpret_cast<uint8_t*>(block + s.salient.byte_ofs));
}

HWY_INLINE void StoreQuad(const QuadStream& stream, int quad, V8 levels, std::byte* tiles, int part) {
  hn::StoreU(levels, d8, reinterpret_cast<uint8_t*>(tiles) + stream.tile_byte_ofs[quad] + part);
}

// The quads of one row of bytes; without kAll some of the last fields have none. A byte is a fraction of 256; each
// product with 3 brings a digit forth.
template <bool kAll>
HWY_INLINE void UnpackTritRow(const QuadStream& stream, const uint8_t* HWY_RESTRICT packed, int k, std::byte* tiles) {
  const V8 low = hn::Set(d8, kTritLevels[0]);
  const V8 middle = hn::Set(d8, kTritLevels[1]);
  const V8 high = hn::Set(d8, kTritLevels[2]);
  for (int part = 0; part < 64; part += kBytes) {
    V8 x = hn::LoadU(d8, packed + k * 64 + part);
    for (int f = 0; f < 5; ++f) {
      if (!kAll && f * stream.rows() + k >= stream.num_quads) break;
      const V8 lower = hn::IfThenElse(hn::Lt(x, hn::Set(d8, 86)), low, middle);
      const V8 levels = hn::IfThenElse(hn::Lt(x, hn::Set(d8, 171)), lower, high);
      StoreQuad(stream, f * stream.rows() + k, levels, tiles, part);
      x = hn::Add(x, hn::Add(x, x));
    }
  }
}

template <bool kAll>
HWY_INLINE void UnpackPairRow(const QuadStream& stream, const uint8_t* HWY_RESTRICT packed, int k, std::byte* tiles) {
  const V8 one = hn::Set(d8, 1);
  for (int part = 0; part < 64; part += kBytes) {
    V8 x = hn::LoadU(d8, packed + k * 64 + part);
    for (int f = 0; f < 4; ++f) {
      if (!kAll && f * stream.rows() + k >= stream.num_quads) break;
      const auto odd = hn::Eq(hn::And(x, one), one);
      const V8 below = hn::IfThenElse(odd, hn::Set(d8, kSalientLevels[1]), hn::Set(d8, kSalientLevels[0]));
      const V8 above = hn::IfThenElse(odd, hn::Set(d8, kSalientLevels[3]), hn::Set(d8, kSalientLevels[2]));
      x = hn::ShiftRight<1>(x);
      StoreQuad(stream, f * stream.rows() + k, hn::IfThenElse(hn::Eq(hn::And(x, one), one), above, below), tiles, part);
      x = hn::ShiftRight<1>(x);
    }
  }
}

void UnpackTrits(const QuadStream& stream, const uint8_t* packed, std::byte* tiles) {
  const int full = stream.full_rows();
  for (int k = 0; k < full; ++k) UnpackTritRow<true>(stream, packed, k, tiles);
  for (int k = full; k < stream.rows(); ++k) UnpackTritRow<false>(stream, packed, k, tiles);
}

void UnpackPairs(const QuadStream& stream, const uint8_t* packed, std::byte* tiles) {
  const int full = stream.full_rows();
  for (int k = 0; k < full; ++k) UnpackPairRow<true>(stream, packed, k, tiles);
  for (int k = full; k < stream.rows(); ++k) UnpackPairRow<false>(stream, packed, k, tiles);
}

void Unpack(const ValueState& s, const std::byte* block, std::byte* tiles) {
  UnpackTrits(s.trits, reinterpret_cast<const uint8_t*>(block + s.trits.byte_ofs), tiles);
  UnpackPairs(s.salient, reinterpret_cast<const uint8_t*>(block + s.salient.byte_ofs), tiles);
}

const Kernels* BestKernels() {
  static constexpr Kernels kKernels = {Split, RowSizes, CodeTrits, CodeSalient, Pack, Unpack};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant::vidkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant::vidkv {

HWY_EXPORT(BestKernels);

const Kernels& GetKernels() { return *HWY_DYNAMIC_DISPATCH(BestKernels)(); }

}  // namespace kvant::vidkv
#endif  // HWY_ONCE
