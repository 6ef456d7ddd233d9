#include "codec/decoquant/decoquant.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "codec/parts/hadamard.h"
#include "codec/parts/page_scalars.h"
#include "codec/parts/strip.h"
#include "codec/parts/trellis.h"

namespace kvant::decoquant {
namespace {

// ---- the map of a segment, one row at a time

void ReflectGroups(const State& s, const SegmentMap& map, void (*reflect)(const ReflectorView&, float*), float* row) {
  if (map.reflectors.dim == 0) return;
  for (int c = 0; c < s.shape.dim; c += map.reflectors.dim) reflect(map.reflectors, row + c);
}

float MetricGain(const SegmentMap& map, int channel) {
  return map.maybe_metric_gains ? ToFloat(map.maybe_metric_gains[channel]) : 1.0f;
}

// Row of K or V -> latents.
void EncodeRow(const State& s, const SegmentMap& map, float* row) {
  ReflectRow(map.metric, row);
  for (int c = 0; c < s.shape.dim; ++c) row[c] *= MetricGain(map, c);
  ReflectGroups(s, map, ReflectRow, row);
  for (int c = 0; c < s.shape.dim; ++c) row[c] /= map.gain(c, s.fold());
  if (map.mix) HadamardRow(s.shape.dim, row);
}

// Latents -> row.
void DecodeRow(const State& s, const SegmentMap& map, float* row) {
  if (map.mix) InverseHadamardRow(s.shape.dim, row);
  for (int c = 0; c < s.shape.dim; ++c) row[c] *= map.gain(c, s.fold());
  ReflectGroups(s, map, ReflectRowBack, row);
  for (int c = 0; c < s.shape.dim; ++c) row[c] /= MetricGain(map, c);
  ReflectRowBack(map.metric, row);
}

// The transpose of DecodeRow: query -> what meets latents in a dot product.
void QueryRow(const State& s, const SegmentMap& map, float* row) {
  ReflectRow(map.metric, row);
  for (int c = 0; c < s.shape.dim; ++c) row[c] /= MetricGain(map, c);
  ReflectGroups(s, map, ReflectRow, row);
  for (int c = 0; c < s.shape.dim; ++c) row[c] *= map.gain(c, s.fold());
  if (map.mix) HadamardRow(s.shape.dim, row);
}

// ---- single values of a block

const F16* Scales(const State& s, const std::byte* block) { return Halves(block, s.scales_ofs); }
const F16* Means(const State& s, const std::byte* block) { return Halves(block, s.means_ofs); }

Status CheckBlock(const State& s, const std::byte* block) {
  KVANT_TRY(CheckTokenScales("decoquant", Scales(s, block)));
  return s.centred ? CheckPageMeans("decoquant", Means(s, block), s.shape.dim) : Status::Ok();
}

// ---- verbs

void LatentRow(const State& s, const SegmentMap& map, const float* rows, const std::byte* block, int t, float* row) {
  for (int c = 0; c < s.shape.dim; ++c) {
    row[c] = rows[t * s.shape.dim + c] - (s.centred ? ToFloat(Means(s, block)[c]) : 0.0f);
  }
  EncodeRow(s, map, row);
}

void EncodeScalar(const State& s, const SegmentMap& map, const GainQuantizer& quantizer, const float* rows,
                  std::byte* block, float* scales) {
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxDim];
    uint8_t codes[kMaxDim];
    LatentRow(s, map, rows, block, t, row);
    QuantizeRow(quantizer, row, codes, scales + t);
    SetRowCodes(CodesOf(s, map), t, codes, block + s.codes_ofs);
  }
}

void EncodeTrellis(const State& s, const SegmentMap& map, const GainQuantizer& quantizer, const float* rows,
                   std::byte* block, float* scales) {
  int16_t ticks[kTokensPerPage * kMaxStripDim];
  uint8_t codes[kTokensPerPage * kMaxStripDim];
  float gains[kTokensPerPage];
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxStripDim];
    LatentRow(s, map, rows, block, t, row);
    TrellisTicks(quantizer, row, ticks + t * s.shape.dim, gains + t);
  }
  TrellisCodes(quantizer, ticks, gains, codes, scales);
  for (int t = 0; t < kTokensPerPage; ++t) {
    SetRowCodes(CodesOf(s, map), t, codes + t * s.shape.dim, block + s.codes_ofs);
  }
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  std::memset(block, 0, s.layout.block_bytes());
  float means[kMaxDim];
  if (s.centred) StorePageMeans(rows, s.shape.dim, Halves(block, s.means_ofs), means);
  float weights[kMaxDim];
  const GainQuantizer quantizer = {s.books, map.bits, s.num_tiles, ScaleWeights(s, map, weights), s.rule};
  float scales[kTokensPerPage];
  (s.trellis ? EncodeTrellis : EncodeScalar)(s, map, quantizer, rows, block, scales);
  return StoreTokenScales("decoquant", scales, Halves(block, s.scales_ofs));
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  KVANT_TRY(CheckBlock(s, block));
  std::fill_n(rows, kTokensPerPage * s.shape.dim, 0.0f);
  ForEachLatent(CodesOf(s, map), block + s.codes_ofs,
                [&](int t, int c, float value) { rows[t * s.shape.dim + c] = value * ToFloat(Scales(s, block)[t]); });
  for (int t = 0; t < kTokensPerPage; ++t) {
    float* row = rows + t * s.shape.dim;
    DecodeRow(s, map, row);
    for (int c = 0; s.centred && c < s.shape.dim; ++c) row[c] += ToFloat(Means(s, block)[c]);
  }
  return Status::Ok();
}

// Prepared query of the reference: [heads][2][dim] floats, the mapped query and the query itself.
void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  auto* out = reinterpret_cast<float*>(prepared);
  for (int h = 0; h < heads; ++h, out += 2 * s.shape.dim, queries += s.shape.dim) {
    std::copy_n(queries, s.shape.dim, out);
    std::copy_n(queries, s.shape.dim, out + s.shape.dim);
    QueryRow(s, map, out);
  }
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  const auto* q = reinterpret_cast<const float*>(prepared);
  std::fill_n(scores, heads * kTokensPerPage, 0.0f);
  ForEachLatent(CodesOf(s, map), block + s.codes_ofs, [&](int t, int c, float value) {
    for (int h = 0; h < heads; ++h) scores[h * kTokensPerPage + t] += q[2 * h * s.shape.dim + c] * value;
  });
  for (int h = 0; h < heads; ++h) {
    float bias = 0.0f;
    for (int c = 0; s.centred && c < s.shape.dim; ++c)
      bias += q[(2 * h + 1) * s.shape.dim + c] * ToFloat(Means(s, block)[c]);
    for (int t = 0; t < kTokensPerPage; ++t) {
      float& score = scores[h * kTokensPerPage + t];
      score = score * ToFloat(Scales(s, block)[t]) + bias;
    }
  }
}

// Accumulator: [dim] latents, 16 floats that the reference leaves alone, and [dim] of means when centred.
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  ForEachLatent(CodesOf(s, map), block + s.codes_ofs, [&](int t, int c, float value) {
    for (int h = 0; h < heads; ++h) {
      acc[h * s.acc_dim + c] += weights[h * kTokensPerPage + t] * ToFloat(Scales(s, block)[t]) * value;
    }
  });
  for (int h = 0; s.centred && h < heads; ++h) {
    float total = 0.0f;
    for (int t = 0; t < kTokensPerPage; ++t) total += weights[h * kTokensPerPage + t];
    float* means = acc + h * s.acc_dim + s.shape.dim + 16;
    for (int c = 0; c < s.shape.dim; ++c) means[c] += total * ToFloat(Means(s, block)[c]);
  }
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  for (int h = 0; h < heads; ++h, acc += s.acc_dim, out += s.shape.dim) {
    std::copy_n(acc, s.shape.dim, out);
    DecodeRow(s, map, out);
    for (int c = 0; s.centred && c < s.shape.dim; ++c) out[c] += acc[s.shape.dim + 16 + c];
  }
}

// ---- the row of the registry

constexpr OptionInfo kOptions[] = {
    {"bits", "4", "0.5..8 in steps of 0.125", "average bits of a code, rounded down to what the tiles can hold"},
    {"gauge", "hadamard", "hadamard, sqrt, bal, klt", "how rows are decomposed (sqrt: as published)"},
    {"code", "auto", "auto, lm, uniform, absmax, trellis",
     "codebook (auto: absmax for gauge=sqrt, else lm); trellis: best quality, slower to encode"},
    {"metric", "rows", "rows, model",
     "gauge=klt: errors count alike, or as the model's queries and outputs weigh them (needs a calibration)"},
    {"mean", "auto", "auto, on, off", "remove the mean of each page (auto: on for K unless gauge=sqrt)"},
    {"scale", "unbiased", "unbiased, ls", "a token's scale: no shrinkage, or the least error; not for absmax codes",
     false},
    {"fit", "1024", "64..1048576", "tokens before the first basis is fitted", false},
    {"refit", "8192", "0..1048576", "tokens of a segment; 0: one basis for all", false},
};

// Measured on N(0,1) rows with the built-in map, +-4 %. Means cost keys 1/4 bit.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 4.375, 0.092, 0.0997},
    {"bits=3", Side::kKey, 3.375, 0.178, 0.193},
    {"bits=2", Side::kKey, 2.375, 0.346, 0.375},
    {"bits=2.5", Side::kKey, 2.875, 0.272, 0.295},
    {"bits=6", Side::kKey, 6.375, 0.0302, 0.0327},
    {"code=uniform", Side::kKey, 4.375, 0.1005, 0.1091},
    {"gauge=bal", Side::kKey, 4.375, 0.092, 0.0997},
    {"gauge=klt,bits=3", Side::kKey, 3.375, 0.178, 0.193},
    {"gauge=sqrt", Side::kKey, 4.125, 0.112, 0.122},
    {"", Side::kValue, 4.125, 0.0926, 0.1004},
    {"bits=3", Side::kValue, 3.125, 0.1794, 0.1944},
    {"bits=2", Side::kValue, 2.125, 0.3470, 0.3760},
    {"bits=2,scale=ls", Side::kValue, 2.125, 0.3260, 0.3532},
    {"bits=2.5", Side::kValue, 2.625, 0.2711, 0.2937},
    {"bits=1", Side::kValue, 1.125, 0.7236, 0.7840},
    {"bits=8", Side::kValue, 8.125, 0.0086, 0.0094},
    {"code=trellis", Side::kKey, 4.375, 0.0780, 0.0846},
    {"code=trellis,bits=2", Side::kKey, 2.375, 0.2844, 0.3080},
    {"code=trellis,gauge=klt,bits=2.5", Side::kKey, 2.875, 0.2266, 0.2454},
    {"code=trellis,bits=3", Side::kValue, 3.125, 0.1483, 0.1607},
    {"code=trellis,bits=2", Side::kValue, 2.125, 0.2854, 0.3092},
    {"code=trellis,bits=1", Side::kValue, 1.125, 0.6135, 0.6647},
    {"code=trellis,gauge=klt,metric=model,bits=3", Side::kKey, 3.375, 0.1483, 0.1607},
    {"gauge=klt,metric=model,bits=2", Side::kValue, 2.125, 0.3470, 0.3760},
    {"mean=on", Side::kValue, 4.375, 0.0924, 0.1000},
    {"gauge=bal", Side::kValue, 4.125, 0.0926, 0.1004},
    {"gauge=klt,bits=2", Side::kValue, 2.125, 0.3470, 0.3760},
    {"gauge=sqrt", Side::kValue, 4.125, 0.113, 0.122},
    {"bits=2,gauge=sqrt", Side::kValue, 2.125, 0.735, 0.797},
};

constexpr CodecPair kTypical[] = {
    {"bits=6", "bits=6"},
    {"bits=4", "bits=4"},
    {"code=trellis", "code=trellis"},
    {"bits=3", "bits=3"},
    {"bits=3,code=trellis", "bits=3,code=trellis"},
    {"bits=2", "bits=2"},
    {"bits=2,code=trellis", "bits=2,code=trellis"},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "decoquant",
    .summary = "codes in a decomposed basis: Hadamard, published (sqrt), balanced or by singular value (klt)",
    .paper = "Liu et al., ACL 2024, arXiv:2405.12591",
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .max_code_mismatch = 1e-3,
    .make = Make,
    .fit_basis = FitBasis,
    .check_basis = CheckBasis,
    .device_format = FormatForDevice,
    .reference = {Encode, Decode, PrepareQuery, Score, Accumulate, Finish},
    .simd = SimdVerbs,
};

}  // namespace kvant::decoquant
