// The fast verbs. No target-specific code here; the kernels are dispatched.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/kvquant/kvquant.h"
#include "codec/kvquant/kvquant_kernels.h"
#include "codec/parts/f16_words.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/tile_kernels.h"
#include "codec/parts/turned_keys.h"

namespace kvant::kvquant {
namespace {

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
  const Kernels& kernels = GetKernels();
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
    GetKernels().code_row({row, ranges.mids, inverse, dim}, basis.thresholds, s.num_thresholds(), row_codes, keys);
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
    GetKernels().moments(rows + t * dim, dim, moments);
    std::fill_n(mean, dim, moments[0]);
    std::fill_n(inverse, dim, moments[1]);
    GetKernels().code_row({rows + t * dim, mean, inverse, dim}, nullptr, 0, codes, keys);
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
    GetKernels().code_row({rows + t * dim, mids, inverse, dim}, basis.thresholds, s.num_thresholds(), codes + t * dim,
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

void DecodeKeys(const State& s, const BlockContext& context, const uint8_t* codes, const float* deltas,
                const std::byte* block, float* rows) {
  const BasisView basis(s, context.basis);
  const KeyRanges ranges(s, context);
  const int dim = s.shape.dim;
  const int16_t* order = context.rope->pair_order();
  alignas(64) float row[kMaxDim];
  for (int t = 0; t < kTokensPerPage; ++t) {
    GetKernels().decode_row(codes + t * dim, basis.levels, ranges.mids, ranges.halves, dim, row);
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
    GetKernels().decode_row(codes + t * dim, basis.levels, mids, halves, dim, rows + t * dim);
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

// A block's keys in 16 bits: everything but the codes, which are read tile by tile.
struct FixedPage {
  float scale;  // units per real value
  alignas(64) int16_t halves[kMaxDim];
  alignas(64) int16_t mids[kMaxDim];
  alignas(64) int16_t deltas[kMaxSlots];

  FixedPage(const State& s, const PreparedView& view, const std::byte* block) {
    const Kernels& kernels = GetKernels();
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
  const Kernels& kernels = GetKernels();
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
  float mid_sum[kMaxHeads];
  fixed.dots(weights, heads, mids, kTokensPerPage, mid_sum);
  for (int h = 0; h < heads; ++h) {
    acc[static_cast<size_t>(h) * stride + static_cast<size_t>(s.shape.dim)] += mid_sum[h] - kLevelCenter * sum[h];
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

}  // namespace kvant::kvquant
