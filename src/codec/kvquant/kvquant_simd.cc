#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "codec/kvquant/kvquant.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/tile_kernels.h"
#include "codec/parts/turned_keys.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/kvquant/kvquant_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"

#ifndef KVANT_KVQUANT_KERNELS_
#define KVANT_KVQUANT_KERNELS_
namespace kvant::kvquant {

// What keys are dequantised by, in the units of keys of turned_keys.h: first members of all pairs, then second ones;
// halves times 128 / 127.
struct FixedRanges {
  const int16_t* halves;  // [dim], of a tile: from its first pair on
  const int16_t* mids;    // [dim]
  int second;             // dim / 2: where second members begin
};

// A row in coded order and how it is normalised.
struct RowToCode {
  const float* values;   // [dim]
  const float* mids;     // [dim]
  const float* inverse;  // [dim]
  int dim;
};

struct Kernels {
  // One tile of keys: levels out of codes, times ranges, turned by `angles` -> keys [4 quads].
  void (*turn_tile)(int bits, const std::byte* tile, const uint8_t* levels, const FixedRanges& ranges,
                    const int16_t* angles, int16_t* keys);
  // out = values [count, multiple of 16] * scale, rounded.
  void (*fix)(const float* values, int count, float scale, int16_t* out);
  // Greatest magnitude of values [count, multiple of 16].
  float (*greatest)(const float* values, int count);
  // codes [dim], and keys [dim] = |normalised value|.
  void (*code_row)(const RowToCode& row, const float* thresholds, int num_thresholds, uint8_t* codes, float* keys);
  // Index of the first of `values` [count] from `first` on that is at least `least`; count when there is none.
  int (*find)(const float* values, int first, int count, float least);
  // values = mids + halves * level of codes.
  void (*decode_row)(const uint8_t* codes, const uint8_t* levels, const float* mids, const float* halves, int dim,
                     float* values);
  // mean [2]: mean, and 1 / standard deviation (0 when there is none).
  void (*moments)(const float* row, int dim, float* moments);
};

}  // namespace kvant::kvquant
#endif

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

using kvquant::FixedRanges;
using kvquant::RowToCode;

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;  // rows are multiples of 16
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr int kFloats = static_cast<int>(hn::MaxLanes(df));

// ------------------------------------------------------------------ keys of a tile

#if HWY_TARGET == HWY_SCALAR
void TurnTile(int bits, const std::byte* tile, const uint8_t* levels, const FixedRanges& ranges, const int16_t* angles,
              int16_t* keys) {
  const auto product = [](int a, int b) { return (a * b + (1 << 14)) >> 15; };
  for (int even = 0; even < kTileChannels; even += 2) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      int members[2];
      for (int m = 0; m < 2; ++m) {
        const int level = levels[TileCode(TileOrder::kTokenLane, bits, tile, t, even + m)] - kLevelCenter;
        const int pair = m * ranges.second + even / 2;
        members[m] = product(level * 256, ranges.halves[pair]) + ranges.mids[pair];
      }
      const int first = PageAngleIndex(even, t), second = PageAngleIndex(even + 1, t);
      keys[first] = static_cast<int16_t>(product(members[0], angles[first]) - product(members[1], angles[second]));
      keys[second] = static_cast<int16_t>(product(members[0], angles[second]) + product(members[1], angles[first]));
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
  alignas(64) float table[kMaxLevels], level_values[kvquant::kMaxDim];
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

const kvquant::Kernels* GetKernels() {
  static constexpr kvquant::Kernels kKernels = {TurnTile, Fix, Greatest, CodeRow, Find, DecodeRow, Moments};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(GetKernels);

namespace kvquant {
namespace {

const Kernels& TheKernels() { return *HWY_DYNAMIC_DISPATCH(GetKernels)(); }

// The ranges of key channels as floats in coded order.
struct KeyRanges {
  alignas(64) float mids[kMaxDim];
  alignas(64) float halves[kMaxDim];
  KeyRanges(const State& s, const BlockContext& context) {
    const BasisView basis(s, context.basis);
    for (int i = 0; i < s.shape.dim; ++i) {
      const int c = context.rope->pair_order()[i];
      mids[i] = ToFloat(basis.mids[c]);
      halves[i] = ToFloat(basis.halves[c]);
    }
  }
};

// ---- encode

constexpr int kTurnRows = 16;  // at a time: what a stack can hold

// Offers the values of a token whose key may count.
template <typename Value>
void OfferRow(Side side, const float* keys, int dim, int token, OutlierPicker* outliers, const Value& value) {
  const Kernels& kernels = TheKernels();
  for (int c = kernels.find(keys, 0, dim, outliers->least_key()); c < dim;
       c = kernels.find(keys, c + 1, dim, outliers->least_key())) {
    outliers->Offer({keys[c], static_cast<uint16_t>(PlaceOf(side, c, token)), value(c)});
  }
}

Status EncodeKeys(const State& s, const BlockContext& context, const float* rows, std::byte* block, uint8_t* codes) {
  const BasisView basis(s, context.basis);
  const KeyRanges ranges(s, context);
  const int dim = s.shape.dim;
  alignas(64) float inverse[kMaxDim], turned[kTurnRows * kMaxDim], row[kMaxDim], keys[kMaxDim];
  for (int i = 0; i < dim; ++i) inverse[i] = 1.0f / ranges.halves[i];
  OutlierPicker outliers(s.slots);
  for (int t = 0; t < kTokensPerPage; ++t) {
    if (t % kTurnRows == 0) {
      std::copy_n(rows + t * dim, kTurnRows * dim, turned);
      TurnRowsBack(*context.rope, context.positions + t, kTurnRows, turned);
    }
    const float* model_order = turned + t % kTurnRows * dim;
    for (int i = 0; i < dim; ++i) row[i] = model_order[context.rope->pair_order()[i]];
    uint8_t* row_codes = codes + t * dim;
    TheKernels().code_row({row, ranges.mids, inverse, dim}, basis.thresholds, s.num_thresholds(), row_codes, keys);
    OfferRow(Side::kKey, keys, dim, t, &outliers,
             [&](int i) { return row[i] - (ranges.mids[i] + ranges.halves[i] * basis.value(row_codes[i])); });
  }
  outliers.Sort();
  return StoreOutliers(s, outliers, block);
}

void PickOutliers(const State& s, const float* rows, OutlierPicker* outliers) {
  const int dim = s.shape.dim;
  alignas(64) float mean[kMaxDim], inverse[kMaxDim], keys[kMaxDim];
  uint8_t codes[kMaxDim];
  for (int t = 0; t < kTokensPerPage; ++t) {
    float moments[2];
    TheKernels().moments(rows + t * dim, dim, moments);
    std::fill_n(mean, dim, moments[0]);
    std::fill_n(inverse, dim, moments[1]);
    TheKernels().code_row({rows + t * dim, mean, inverse, dim}, nullptr, 0, codes, keys);
    OfferRow(Side::kValue, keys, dim, t, outliers, [&](int c) { return rows[t * dim + c]; });
  }
  outliers->Sort();
}

Status EncodeValues(const State& s, const BlockContext& context, const float* rows, std::byte* block, uint8_t* codes) {
  const BasisView basis(s, context.basis);
  const int dim = s.shape.dim;
  OutlierPicker outliers(s.slots);
  TokenRange ranges[kTokensPerPage];
  PickOutliers(s, rows, &outliers);
  FitRanges(s, rows, outliers, ranges);
  KVANT_TRY(StoreRanges(s, ranges, block));
  alignas(64) float mids[kMaxDim], inverse[kMaxDim], keys[kMaxDim];
  for (int t = 0; t < kTokensPerPage; ++t) {
    std::fill_n(mids, dim, ToFloat(ranges[t].mid));
    std::fill_n(inverse, dim, ranges[t].inverse());
    TheKernels().code_row({rows + t * dim, mids, inverse, dim}, basis.thresholds, s.num_thresholds(), codes + t * dim,
                          keys);
  }
  for (Outlier& o : outliers.chosen()) {
    const auto [channel, token] = PlaceAt(Side::kValue, o.place);
    const TokenRange& range = ranges[token];
    const int code = codes[token * dim + channel];
    o.value -= ToFloat(range.mid) + ToFloat(range.half) * basis.value(code);
  }
  return StoreOutliers(s, outliers, block);
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  std::memset(block, 0, s.layout.block_bytes());
  alignas(64) uint8_t codes[kTokensPerPage * kMaxDim];
  KVANT_TRY((s.keys() ? EncodeKeys : EncodeValues)(s, context, rows, block, codes));
  GetTileKernels().pack(s.order(), s.tile_bits, s.num_tiles(), codes, block + s.codes_ofs);
  return Status::Ok();
}

// ---- decode

const uint16_t* Words(const F16* values) { return reinterpret_cast<const uint16_t*>(values); }

void DecodeKeys(const State& s, const BlockContext& context, const uint8_t* codes, const float* deltas,
                const std::byte* block, float* rows) {
  const BasisView basis(s, context.basis);
  const KeyRanges ranges(s, context);
  const int dim = s.shape.dim;
  const int16_t* order = context.rope->pair_order();
  alignas(64) float row[kMaxDim];
  for (int t = 0; t < kTokensPerPage; ++t) {
    TheKernels().decode_row(codes + t * dim, basis.levels, ranges.mids, ranges.halves, dim, row);
    for (int i = 0; i < dim; ++i) rows[t * dim + order[i]] = row[i];
  }
  for (int i = 0; i < s.slots; ++i) {
    const auto [channel, token] = PlaceAt(Side::kKey, s.places(block)[i]);
    rows[token * dim + order[channel]] += deltas[i];
  }
  TurnRows(*context.rope, context.positions, kTokensPerPage, rows);
}

void DecodeValues(const State& s, const BlockContext& context, const uint8_t* codes, const float* deltas,
                  const std::byte* block, float* rows) {
  const BasisView basis(s, context.basis);
  const int dim = s.shape.dim;
  alignas(64) float mids[kMaxDim], halves[kMaxDim];
  for (int t = 0; t < kTokensPerPage; ++t) {
    std::fill_n(mids, dim, ToFloat(s.mids(block)[t]));
    std::fill_n(halves, dim, ToFloat(s.halves(block)[t]));
    TheKernels().decode_row(codes + t * dim, basis.levels, mids, halves, dim, rows + t * dim);
  }
  for (int i = 0; i < s.slots; ++i) {
    const auto [channel, token] = PlaceAt(Side::kValue, s.places(block)[i]);
    rows[token * dim + channel] += deltas[i];
  }
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  KVANT_TRY(CheckBlock(s, block));
  alignas(64) uint8_t codes[kTokensPerPage * kMaxDim];
  alignas(64) float deltas[kMaxSlots];
  GetTileKernels().unpack(s.order(), s.tile_bits, s.num_tiles(), block + s.codes_ofs, codes);
  GetFixedPointKernels().from_f16(Words(s.deltas(block)), s.slots, deltas);
  (s.keys() ? DecodeKeys : DecodeValues)(s, context, codes, deltas, block, rows);
  return Status::Ok();
}

// ---- prepare_query, score

// Prepared queries: what all heads share, then split queries [heads][dim] (turned_keys.h). Members of pairs stand apart,
// first members [dim / 2] and then second ones.
struct PreparedView {
  float* mids;    // [dim]
  float* halves;  // [dim]
  float* norms;   // [kMaxHeads]
  float* bound;   // [16]: the first is the greatest length of a pair without outliers
  float* split;   // [heads][dim]

  PreparedView(const State& s, std::byte* prepared)
      : mids(reinterpret_cast<float*>(prepared)),
        halves(mids + s.shape.dim),
        norms(halves + s.shape.dim),
        bound(norms + kMaxHeads),
        split(bound + 16) {}
};

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const PreparedView view(s, prepared);
  const KeyRanges ranges(s, context);
  const int pairs = s.shape.dim / 2;
  view.bound[0] = 0.0f;
  for (int j = 0; j < pairs; ++j) {
    float most[2];
    for (int member = 0; member < 2; ++member) {
      view.mids[member * pairs + j] = ranges.mids[2 * j + member];
      view.halves[member * pairs + j] = ranges.halves[2 * j + member];
      // A level may be -128 / 127.
      most[member] = std::abs(ranges.mids[2 * j + member]) + ranges.halves[2 * j + member] * 1.01f;
    }
    view.bound[0] = std::max(view.bound[0], std::hypot(most[0], most[1]));
  }
  SplitQueries(*context.rope, queries, heads, view.split, view.norms);
}

int Product15(int a, int b) { return (a * b + (1 << 14)) >> 15; }

// A block's keys in 16 bits: everything but the codes, which are read tile by tile.
struct FixedPage {
  float scale;  // units per real value
  alignas(64) int16_t halves[kMaxDim];
  alignas(64) int16_t mids[kMaxDim];
  alignas(64) int16_t deltas[kMaxSlots];

  FixedPage(const State& s, const PreparedView& view, const std::byte* block) {
    const Kernels& kernels = TheKernels();
    alignas(64) float real[kMaxSlots];
    GetFixedPointKernels().from_f16(Words(s.deltas(block)), s.slots, real);
    // A pair may hold two outliers.
    scale = kMaxKeyPair / (view.bound[0] + 1.5f * kernels.greatest(real, s.slots));
    kernels.fix(real, s.slots, scale, deltas);
    kernels.fix(view.mids, s.shape.dim, scale, mids);
    kernels.fix(view.halves, s.shape.dim, scale * (128.0f * kLevelStep), halves);
  }
};

// Adds outliers to the turned keys of the chunk that begins at place `first`; returns the next outlier. In the plane of
// its pair a delta is (d, 0) or (0, d).
int AddOutliers(const State& s, const uint16_t* places, const int16_t* deltas, int next, int first,
                const int16_t* angles, int16_t* keys) {
  constexpr int kMember = kQuadValues / 2;
  for (; next < s.slots && places[next] < first + kTurnChunkValues; ++next) {
    const int place = places[next] - first;
    const int even = place & ~kMember, odd = place | kMember;
    const bool is_first = place == even;
    const int cos = angles[even], sin = angles[odd];
    keys[even] = static_cast<int16_t>(keys[even] + Product15(deltas[next], is_first ? cos : -sin));
    keys[odd] = static_cast<int16_t>(keys[odd] + Product15(deltas[next], is_first ? sin : cos));
  }
  return next;
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const PreparedView view(s, const_cast<std::byte*>(prepared));
  const BasisView basis(s, context.basis);
  const Rope& rope = *context.rope;
  const Kernels& kernels = TheKernels();
  const TurnedKeyKernels& turned = GetTurnedKeyKernels();
  const int dim = s.shape.dim;
  alignas(64) int16_t own_angles[PageAngleValues(kMaxDim)];
  alignas(64) int16_t queries[kMaxHeads * kMaxDim];
  alignas(64) int16_t keys[kTurnChunkValues];
  float unit[kMaxHeads];

  const bool consecutive = AreConsecutive(context.positions, kTokensPerPage);
  const int16_t* angles = consecutive ? rope.first_page_angles() : own_angles;
  if (!consecutive) rope.PageAngles(context.positions, own_angles);
  turned.turn_queries(rope, consecutive ? context.positions[0] : 0, view.split, view.norms, heads, queries, unit);

  const FixedPage page(s, view, block);
  for (int h = 0; h < heads; ++h) unit[h] /= page.scale;
  std::fill_n(scores, heads * kTokensPerPage, 0.0f);
  int outlier = 0;
  for (int first = 0; first < dim; first += kTurnChannels) {
    const int end = std::min(first + kTurnChannels, dim);
    for (int c = first; c < end; c += kTileChannels) {
      const FixedRanges ranges = {page.halves + c / 2, page.mids + c / 2, dim / 2};
      kernels.turn_tile(s.bits, block + s.codes_ofs + static_cast<size_t>(c / kTileChannels) * TileBytes(s.bits),
                        basis.levels, ranges, angles + c / 4 * kQuadValues, keys + (c - first) / 4 * kQuadValues);
    }
    const int place = PlaceOf(Side::kKey, first, 0);
    outlier = AddOutliers(s, s.places(block), page.deltas, outlier, place, angles + place, keys);
    turned.dot(keys, (end - first) / 4, queries + first / 2, dim, heads, unit, scores);
  }
}

// ---- accumulate, finish

// Accumulator: [dim] sums, then 16 floats of which the first is what all channels have in common.
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const BasisView basis(s, context.basis);
  const FixedPointKernels& fixed = GetFixedPointKernels();
  const auto stride = static_cast<size_t>(s.acc_dim);
  alignas(64) float mids[kTokensPerPage], halves[kTokensPerPage];
  fixed.from_f16(Words(s.mids(block)), kTokensPerPage, mids);
  fixed.from_f16(Words(s.halves(block)), kTokensPerPage, halves);
  for (float& half : halves) half *= kLevelStep;

  alignas(64) int8_t operand[kMaxHeads * 2 * kTokensPerPage];
  float unit[kMaxHeads], sum[kMaxHeads];
  const int planes = fixed.quantize_weights(weights, heads, halves, OnePlaneWeight(s.bits), operand, unit, sum);
  TileLevels levels;
  std::copy_n(basis.levels, kMaxLevels, levels.by_bits[s.bits]);
  GetTileKernels().accumulate({block + s.codes_ofs, s.tile_bits, s.num_tiles(), &levels}, operand, heads, planes, unit,
                              acc, stride);
  for (int h = 0; h < heads; ++h) {
    acc[static_cast<size_t>(h) * stride + static_cast<size_t>(s.shape.dim)] +=
        fixed.dot(weights + h * kTokensPerPage, mids, kTokensPerPage) - kLevelCenter * sum[h];
  }

  alignas(64) float deltas[kMaxSlots];
  fixed.from_f16(Words(s.deltas(block)), s.slots, deltas);
  const uint16_t* places = s.places(block);
  for (int i = 0; i < s.slots; ++i) {
    const auto [channel, token] = PlaceAt(Side::kValue, places[i]);
    for (int h = 0; h < heads; ++h) {
      acc[h * s.acc_dim + channel] += weights[h * kTokensPerPage + token] * deltas[i];
    }
  }
}

}  // namespace

// The reference's finish is a copy: nothing to gain.
const CodecVerbs* SimdVerbs() {
  static constexpr CodecVerbs kVerbs = {
      .encode = Encode, .decode = Decode, .prepare_query = PrepareQuery, .score = Score, .accumulate = Accumulate};
  return &kVerbs;
}

}  // namespace kvquant
}  // namespace kvant
#endif  // HWY_ONCE
