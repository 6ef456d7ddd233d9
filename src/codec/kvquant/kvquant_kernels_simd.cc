#include "codec/kvquant/kvquant_kernels.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/kvquant/kvquant_kernels_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant::kvquant {
namespace HWY_NAMESPACE {
namespace {

using namespace kvant::HWY_NAMESPACE;  // vectors of tiles
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;  // rows are multiples of 16
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr int kFloats = static_cast<int>(hn::MaxLanes(df));

// ------------------------------------------------------------------ keys of a tile

#if HWY_TARGET == HWY_SCALAR
void TurnTile(int bits, const std::byte* tile, const uint8_t* levels, const FixedRanges& ranges, const int16_t* angles,
              int16_t* keys) {
  for (int even = 0; even < kTileChannels; even += 2) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      int members[2];
      for (int m = 0; m < 2; ++m) {
        const int level = levels[TileCode(TileOrder::kTokenLane, bits, tile, t, even + m)] - kLevelCenter;
        const int pair = m * ranges.second + even / 2;
        members[m] = Product15(level * 256, ranges.halves[pair]) + ranges.mids[pair];
      }
      const int first = PageAngleIndex(even, t), second = PageAngleIndex(even + 1, t);
      keys[first] = static_cast<int16_t>(Product15(members[0], angles[first]) - Product15(members[1], angles[second]));
      keys[second] = static_cast<int16_t>(Product15(members[0], angles[second]) + Product15(members[1], angles[first]));
    }
  }
}
#else
using D16 = hn::Repartition<int16_t, D8>;
using V16 = hn::Vec<D16>;
constexpr D16 d16;

// Codes from kIndex on: kLanes8 / 4 tokens of one quad.
template <int kBits, int kIndex>
HWY_INLINE void TurnVector(const uint8_t* HWY_RESTRICT tile, V8 table, const FixedRanges& ranges,
                           const int16_t* HWY_RESTRICT angles, int16_t* HWY_RESTRICT keys) {
  constexpr int kQuad = kIndex / kQuadValues;
  constexpr int kOfs = kQuad * kQuadValues + kIndex % kQuadValues / 2;  // of the first members; two per token
  constexpr int kSecond = kQuadValues / 2;
  const V16 levels = hn::BitCast(d16, hn::TableLookupBytes(table, Codes<kBits, kIndex>(tile, 0)));
  // Bytes are signed levels of a, b, a', b' of two pairs; in the upper half of a word they are times 256.
  const V16 a = hn::Add(hn::MulFixedPoint15(hn::ShiftLeft<8>(levels), BroadcastPair(d16, ranges.halves + 2 * kQuad)),
                        BroadcastPair(d16, ranges.mids + 2 * kQuad));
  const V16 b = hn::Add(hn::MulFixedPoint15(hn::And(levels, hn::Set(d16, static_cast<int16_t>(0xFF00))),
                                            BroadcastPair(d16, ranges.halves + ranges.second + 2 * kQuad)),
                        BroadcastPair(d16, ranges.mids + ranges.second + 2 * kQuad));
  const V16 cos = hn::LoadU(d16, angles + kOfs), sin = hn::LoadU(d16, angles + kOfs + kSecond);
  hn::StoreU(hn::Sub(hn::MulFixedPoint15(a, cos), hn::MulFixedPoint15(b, sin)), d16, keys + kOfs);
  hn::StoreU(hn::Add(hn::MulFixedPoint15(a, sin), hn::MulFixedPoint15(b, cos)), d16, keys + kOfs + kSecond);
}

template <int kBits, int kIndex = 0>
HWY_INLINE void TurnVectors(const uint8_t* tile, V8 table, const FixedRanges& ranges, const int16_t* angles,
                            int16_t* keys) {
  if constexpr (kIndex < kTileCodes) {
    TurnVector<kBits, kIndex>(tile, table, ranges, angles, keys);
    TurnVectors<kBits, kIndex + kLanes8>(tile, table, ranges, angles, keys);
  }
}

template <int kBits>
HWY_NOINLINE void TurnBits(const uint8_t* tile, V8 table, const FixedRanges& ranges, const int16_t* angles,
                           int16_t* keys) {
  TurnVectors<kBits>(tile, table, ranges, angles, keys);
}

void TurnTile(int bits, const std::byte* tile, const uint8_t* levels, const FixedRanges& ranges, const int16_t* angles,
              int16_t* keys) {
  const V8 table = hn::Xor(hn::LoadDup128(d8, levels), hn::Set(d8, uint8_t{kLevelCenter}));
  const auto* bytes = reinterpret_cast<const uint8_t*>(tile);
  if (bits == 2) return TurnBits<2>(bytes, table, ranges, angles, keys);
  if (bits == 3) return TurnBits<3>(bytes, table, ranges, angles, keys);
  TurnBits<4>(bytes, table, ranges, angles, keys);
}
#endif  // HWY_SCALAR

void Fix(const float* values, int count, float scale, int16_t* out) {
  const hn::Rebind<int16_t, DF> dh;
  for (int i = 0; i < count; i += kFloats) {
    const VF scaled = hn::Mul(hn::LoadU(df, values + i), hn::Set(df, scale));
    hn::StoreU(hn::DemoteTo(dh, hn::NearestInt(scaled)), dh, out + i);
  }
}

float Greatest(const float* values, int count) {
  VF most = hn::Zero(df);
  for (int i = 0; i < count; i += kFloats) most = hn::Max(most, hn::Abs(hn::LoadU(df, values + i)));
  return hn::GetLane(hn::MaxOfLanes(df, most));
}

// ------------------------------------------------------------------ rows

void CodeRow(const RowToCode& row, const float* thresholds, int num_thresholds, uint8_t* codes, float* keys) {
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<uint8_t, DF> du8;
  for (int c = 0; c < row.dim; c += kFloats) {
    const VF x =
        hn::Mul(hn::Sub(hn::LoadU(df, row.values + c), hn::LoadU(df, row.mids + c)), hn::LoadU(df, row.inverse + c));
    hn::StoreU(hn::Abs(x), df, keys + c);
    auto code = hn::Zero(di);
    for (int i = 0; i < num_thresholds; ++i) {
      code = hn::Sub(code, hn::BitCast(di, hn::VecFromMask(df, hn::Gt(x, hn::Set(df, thresholds[i])))));
    }
    hn::StoreU(hn::DemoteTo(du8, code), du8, codes + c);
  }
}

int Find(const float* values, int first, int count, float least) {
  int i = first;
  for (; i < count && i % kFloats != 0; ++i) {
    if (values[i] >= least) return i;
  }
  for (; i < count; i += kFloats) {
    const intptr_t lane = hn::FindFirstTrue(df, hn::Ge(hn::LoadU(df, values + i), hn::Set(df, least)));
    if (lane >= 0) return i + static_cast<int>(lane);
  }
  return count;
}

void DecodeRow(const uint8_t* codes, const uint8_t* levels, const float* mids, const float* halves, int dim,
               float* values) {
  alignas(64) float table[kMaxLevels], level_values[kMaxDim];
  for (int i = 0; i < kMaxLevels; ++i) table[i] = LevelValue(levels[i]);
  for (int c = 0; c < dim; ++c) level_values[c] = table[codes[c]];
  for (int c = 0; c < dim; c += kFloats) {
    const VF value = hn::LoadU(df, level_values + c);
    hn::StoreU(hn::MulAdd(hn::LoadU(df, halves + c), value, hn::LoadU(df, mids + c)), df, values + c);
  }
}

void Moments(const float* row, int dim, float* moments) {
  VF sum = hn::Zero(df), squares = hn::Zero(df);
  for (int c = 0; c < dim; c += kFloats) sum = hn::Add(sum, hn::LoadU(df, row + c));
  moments[0] = hn::GetLane(hn::SumOfLanes(df, sum)) / static_cast<float>(dim);
  const VF mean = hn::Set(df, moments[0]);
  for (int c = 0; c < dim; c += kFloats) {
    const VF x = hn::Sub(hn::LoadU(df, row + c), mean);
    squares = hn::MulAdd(x, x, squares);
  }
  const float total = hn::GetLane(hn::SumOfLanes(df, squares));
  moments[1] = total > 0.0f ? 1.0f / std::sqrt(total / static_cast<float>(dim)) : 0.0f;
}

const Kernels* BestKernels() {
  static constexpr Kernels kKernels = {TurnTile, Fix, Greatest, CodeRow, Find, DecodeRow, Moments};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant::kvquant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant::kvquant {

HWY_EXPORT(BestKernels);

const Kernels& GetKernels() { return *HWY_DYNAMIC_DISPATCH(BestKernels)(); }

}  // namespace kvant::kvquant
#endif  // HWY_ONCE
