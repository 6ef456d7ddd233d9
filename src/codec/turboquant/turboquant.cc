#include "codec/turboquant/turboquant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "codec/parts/hadamard.h"
#include "codec/parts/page_scalars.h"

namespace kvant::turboquant {
namespace {

// Codes 0 and 1 as -1 and +1.
const CodebookSet& SignCodebooks() {
  static const CodebookSet kSet = [] {
    CodebookSet set = {};
    set.by_bits[1] = {.bits = 1, .step = 2.0f, .center = 0.5f};
    return set;
  }();
  return kSet;
}

constexpr auto kOneBit = [] {
  std::array<uint8_t, kMaxStripDim / kTileChannels> bits{};
  bits.fill(1);
  return bits;
}();

}  // namespace

// ---- what both implementations share

LatentCodes SegmentView::signs() const {
  return {TileOrder::kTokenLane, &SignCodebooks(), kOneBit.data(), state_.shape.dim / kTileChannels, false};
}

void SegmentView::ChannelOrder(uint8_t* order) const {
  std::iota(order, order + state_.shape.dim, uint8_t{0});
  if (outliers_ == nullptr) return;
  const uint8_t* const end = outliers_ + state_.classes[0].channels();
  uint8_t* out = std::copy(outliers_, end, order);
  for (int c = 0; c < state_.shape.dim; ++c) {
    if (!std::binary_search(outliers_, end, c)) *out++ = static_cast<uint8_t>(c);
  }
}

void TokenScales(const State& state, const ChannelClass& part, const std::byte* block, float* scales) {
  if (state.calibrated) {
    std::fill_n(scales, kTokensPerPage, 1.0f);
  } else {
    LoadTokenScales(Halves(block, part.scales_ofs), scales);
  }
}

void ResidualScales(const State& state, const std::byte* block, float* scales) {
  LoadTokenScales(Halves(block, state.norms_ofs), scales);
  for (int t = 0; t < kTokensPerPage; ++t) scales[t] *= EstimatorScale(state.sketch->rows);
}

Status CheckContext(const State& state, const BlockContext& context) {
  if (!state.needs_calibration || context.basis != nullptr) return Status::Ok();
  return Status::InvalidArgument("turboquant: rotate=svd and code=calibrated need a calibration");
}

Status CheckBlock(const State& state, const std::byte* block) {
  if (state.centred) KVANT_TRY(CheckPageMeans("turboquant", Halves(block, state.means_ofs), state.shape.dim));
  for (const ChannelClass& part : state.used_classes()) {
    if (!state.calibrated) KVANT_TRY(CheckTokenScales("turboquant", Halves(block, part.scales_ofs)));
  }
  return state.sketched() ? CheckTokenScales("turboquant", Halves(block, state.norms_ofs)) : Status::Ok();
}

namespace {

// ---- the map, one row at a time

// out_i = sum_c matrix[i][c] row_c / sqrt(n), and with the transpose.
void MultiplyDense(const Sketch& matrix, bool transposed, float* row) {
  float out[kMaxStripDim];
  const float norm = 1.0f / std::sqrt(static_cast<float>(matrix.dim));
  for (int i = 0; i < matrix.dim; ++i) {
    const float* factors = transposed ? matrix.channel(i) : matrix.row(i);
    out[i] = std::inner_product(row, row + matrix.dim, factors, 0.0f) * norm;
  }
  std::copy_n(out, matrix.dim, row);
}

void RotateClass(const State& s, const SegmentView& view, const ChannelClass& part, bool back, float* row) {
  switch (s.rotation) {
    case Rotation::kHadamard:
      return (back ? InverseHadamardRow : HadamardRow)(part.channels(), row);
    case Rotation::kDense:
      return MultiplyDense(*part.dense, back, row);
    case Rotation::kSvd:
      return (back ? ReflectRowBack : ReflectRow)(view.reflectors(), row);
    case Rotation::kNone:
      return;
  }
}

// Row -> latents; orthogonal, so queries take the same way.
void ToLatents(const State& s, const SegmentView& view, const float* row, float* latents) {
  uint8_t order[kMaxStripDim];
  view.ChannelOrder(order);
  for (int i = 0; i < s.shape.dim; ++i) latents[i] = row[order[i]];
  for (const ChannelClass& part : s.used_classes()) RotateClass(s, view, part, false, latents + part.first);
}

void FromLatents(const State& s, const SegmentView& view, float* latents, float* row) {
  uint8_t order[kMaxStripDim];
  view.ChannelOrder(order);
  for (const ChannelClass& part : s.used_classes()) RotateClass(s, view, part, true, latents + part.first);
  for (int i = 0; i < s.shape.dim; ++i) row[order[i]] = latents[i];
}

// ---- encode

// Scales and norms of a page before they are rounded.
struct PageScales {
  float classes[2][kTokensPerPage];
  float norms[kTokensPerPage];
};

// Codes of one class of a token; what they lose stays in `latents`.
float EncodeClass(const State& s, const SegmentView& view, const ChannelClass& part, int token, float* latents,
                  std::byte* block) {
  const LatentCodes codes = view.codes(part);
  uint8_t row_codes[kMaxStripDim];
  float scale = 1.0f;
  if (s.calibrated) {
    std::transform(latents, latents + part.channels(), row_codes,
                   [&](float v) { return static_cast<uint8_t>(TableCode(view.table(), v)); });
  } else {
    QuantizeRow({codes.books, part.bits, part.num_tiles, nullptr, s.rule}, latents, row_codes, &scale);
  }
  SetRowCodes(codes, token, row_codes, block + part.codes_ofs);
  const float stored = s.calibrated ? 1.0f : ToFloat(ToF16(scale));
  for (int c = 0; c < part.channels(); ++c) latents[c] -= stored * CodeValue(*codes.books, part.bits[0], row_codes[c]);
  return scale;
}

// Signs of a token's residual; returns its norm.
float EncodeResidual(const State& s, const SegmentView& view, int token, const float* residual, std::byte* block) {
  const int dim = s.shape.dim;
  uint8_t signs[kMaxStripDim];
  for (int i = 0; i < dim; ++i) {
    signs[i] = std::inner_product(residual, residual + dim, s.sketch->row(i), 0.0f) > 0.0f;
  }
  SetRowCodes(view.signs(), token, signs, block + s.signs_ofs);
  return std::sqrt(std::inner_product(residual, residual + dim, residual, 0.0f));
}

Status StoreScales(const State& s, const PageScales& scales, std::byte* block) {
  for (int i = 0; i < s.num_classes && !s.calibrated; ++i) {
    KVANT_TRY(StoreTokenScales("turboquant", scales.classes[i], Halves(block, s.classes[i].scales_ofs)));
  }
  return s.sketched() ? StoreTokenScales("turboquant", scales.norms, Halves(block, s.norms_ofs)) : Status::Ok();
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  const SegmentView view(s, context.basis);
  std::memset(block, 0, s.layout.block_bytes());
  float means[kMaxStripDim] = {};
  if (s.centred) StorePageMeans(rows, s.shape.dim, Halves(block, s.means_ofs), means);
  PageScales scales;
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxStripDim];
    float latents[kMaxStripDim];
    for (int c = 0; c < s.shape.dim; ++c) row[c] = rows[t * s.shape.dim + c] - means[c];
    ToLatents(s, view, row, latents);
    for (int i = 0; i < s.num_classes; ++i) {
      scales.classes[i][t] = EncodeClass(s, view, s.classes[i], t, latents + s.classes[i].first, block);
    }
    if (s.sketched()) scales.norms[t] = EncodeResidual(s, view, t, latents, block);
  }
  return StoreScales(s, scales, block);
}

// ---- decode

// Adds the residual that the signs stand for to latents [64, dim].
void AddResidual(const State& s, const SegmentView& view, const std::byte* block, float* latents) {
  float scales[kTokensPerPage];
  ResidualScales(s, block, scales);
  ForEachLatent(view.signs(), block + s.signs_ofs, [&](int t, int i, float sign) {
    const float* direction = s.sketch->row(i);
    for (int c = 0; c < s.shape.dim; ++c) latents[t * s.shape.dim + c] += scales[t] * sign * direction[c];
  });
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  KVANT_TRY(CheckBlock(s, block));
  const SegmentView view(s, context.basis);
  const int dim = s.shape.dim;
  std::fill_n(rows, kTokensPerPage * dim, 0.0f);
  for (const ChannelClass& part : s.used_classes()) {
    float scales[kTokensPerPage];
    TokenScales(s, part, block, scales);
    ForEachLatent(view.codes(part), block + part.codes_ofs,
                  [&](int t, int c, float value) { rows[t * dim + part.first + c] = scales[t] * value; });
  }
  if (s.sketched()) AddResidual(s, view, block, rows);
  float means[kMaxStripDim] = {};
  if (s.centred) LoadPageMeans(Halves(block, s.means_ofs), dim, means);
  for (int t = 0; t < kTokensPerPage; ++t) {
    float latents[kMaxStripDim];
    std::copy_n(rows + t * dim, dim, latents);
    FromLatents(s, view, latents, rows + t * dim);
    for (int c = 0; c < dim; ++c) rows[t * dim + c] += means[c];
  }
  return Status::Ok();
}

// ---- prepare_query, score

// Prepared query of the reference: [heads][3][dim] floats, the query, its latents and its sketch.
void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  const int dim = s.shape.dim;
  auto* out = reinterpret_cast<float*>(prepared);
  for (int h = 0; h < heads; ++h, out += 3 * dim, queries += dim) {
    std::copy_n(queries, dim, out);
    ToLatents(s, view, queries, out + dim);
    for (int i = 0; i < dim; ++i) {
      out[2 * dim + i] = s.sketched() ? std::inner_product(out + dim, out + 2 * dim, s.sketch->row(i), 0.0f) : 0.0f;
    }
  }
}

// Adds the scores [64] of one head for one run of latents.
void AddScores(const LatentCodes& codes, const std::byte* packed, const float* scales, const float* query,
               float* scores) {
  ForEachLatent(codes, packed, [&](int t, int c, float value) { scores[t] += scales[t] * query[c] * value; });
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  const int dim = s.shape.dim;
  const auto* q = reinterpret_cast<const float*>(prepared);
  float scales[kTokensPerPage];
  for (int h = 0; h < heads; ++h, q += 3 * dim, scores += kTokensPerPage) {
    float bias = 0.0f;
    for (int c = 0; s.centred && c < dim; ++c) bias += q[c] * ToFloat(Halves(block, s.means_ofs)[c]);
    std::fill_n(scores, kTokensPerPage, bias);
    for (const ChannelClass& part : s.used_classes()) {
      TokenScales(s, part, block, scales);
      AddScores(view.codes(part), block + part.codes_ofs, scales, q + dim + part.first, scores);
    }
    if (!s.sketched()) continue;
    ResidualScales(s, block, scales);
    AddScores(view.signs(), block + s.signs_ofs, scales, q + 2 * dim, scores);
  }
}

// ---- accumulate, finish

// Accumulator: [dim] latents, 16 floats that the reference leaves alone, and [dim] of means when centred.
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  for (const ChannelClass& part : s.used_classes()) {
    float scales[kTokensPerPage];
    TokenScales(s, part, block, scales);
    ForEachLatent(view.codes(part), block + part.codes_ofs, [&](int t, int c, float value) {
      for (int h = 0; h < heads; ++h) {
        acc[h * s.acc_dim + part.first + c] += weights[h * kTokensPerPage + t] * scales[t] * value;
      }
    });
  }
  for (int h = 0; s.centred && h < heads; ++h) {
    const float total = std::accumulate(weights + h * kTokensPerPage, weights + (h + 1) * kTokensPerPage, 0.0f);
    float* means = acc + h * s.acc_dim + s.shape.dim + 16;
    for (int c = 0; c < s.shape.dim; ++c) means[c] += total * ToFloat(Halves(block, s.means_ofs)[c]);
  }
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  for (int h = 0; h < heads; ++h, acc += s.acc_dim, out += s.shape.dim) {
    float latents[kMaxStripDim];
    std::copy_n(acc, s.shape.dim, latents);
    FromLatents(s, view, latents, out);
    for (int c = 0; s.centred && c < s.shape.dim; ++c) out[c] += acc[s.shape.dim + 16 + c];
  }
}

// ---- the row of the registry

constexpr OptionInfo kOptions[] = {
    {"bits", "4", "1..4 in steps of 0.5",
     "bits of a code, the sign of a residual included; halves: two channel classes"},
    {"rotate", "hadamard", "hadamard, dense, svd, none", "random rotation; svd: fitted by a calibration"},
    {"scale", "unbiased", "unbiased, ls, nc, norm", "a token's scale; norm: as published, nc: same length as the row"},
    {"mean", "off", "on, off", "remove the mean of each page (1/4 bit at head size 128)"},
    {"code", "lm", "lm, calibrated", "Lloyd-Max codes, or a table fitted by a calibration, without scales"},
    {"residual", "none", "none, gaussian, orthogonal, sign",
     "K: one bit of each value for the signs of a sketch of the residual, or (calibrated) of the residual itself"},
    {"preset", "none", "none, paper, turboesm", "other defaults: TurboQuant as published, or TurboESM", true, true},
};

// Measured on N(0,1) rows, +-4 %; with a basis only where the codec needs one (fitted to other rows then).
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 4.125, 0.09032, 0.09784},
    {"bits=3", Side::kKey, 3.125, 0.1781, 0.1929},
    {"bits=2", Side::kKey, 2.125, 0.3405, 0.3689},
    {"bits=3.5", Side::kKey, 3.5, 0.1638, 0.1774},
    {"bits=2.5", Side::kKey, 2.5, 0.312, 0.338},
    {"bits=1", Side::kKey, 1.125, 0.7176, 0.7774},
    {"mean=on", Side::kKey, 4.375, 0.08991, 0.0974},
    {"preset=paper", Side::kKey, 4.125, 0.09187, 0.09953},
    {"preset=paper,bits=2.5", Side::kKey, 2.5, 0.2993, 0.3243},
    {"preset=paper,residual=gaussian", Side::kKey, 4.25, 0.218, 0.2361},
    {"residual=orthogonal,bits=3", Side::kKey, 3.25, 0.2577, 0.2792},
    {"residual=gaussian,bits=1", Side::kKey, 1.125, 1.214, 1.315},
    {"residual=orthogonal,bits=2.5,mean=on", Side::kKey, 2.875, 0.4838, 0.5241},
    {"preset=turboesm", Side::kKey, 4.0, 0.104, 0.113},
    {"preset=turboesm,residual=none,bits=3", Side::kKey, 3.0, 0.181, 0.196},
    {"rotate=svd,scale=nc", Side::kKey, 4.125, 0.09213, 0.09981},
    {"", Side::kValue, 4.125, 0.09032, 0.09784},
    {"bits=3", Side::kValue, 3.125, 0.1781, 0.1929},
    {"bits=2", Side::kValue, 2.125, 0.3405, 0.3689},
    {"bits=3.5", Side::kValue, 3.5, 0.1638, 0.1774},
    {"bits=2.5", Side::kValue, 2.5, 0.312, 0.338},
    {"bits=1", Side::kValue, 1.125, 0.7176, 0.7774},
    {"bits=1.5", Side::kValue, 1.5, 0.6497, 0.7038},
    {"scale=ls,bits=2", Side::kValue, 2.125, 0.3206, 0.3473},
    {"preset=paper,bits=3", Side::kValue, 3.125, 0.176, 0.1907},
    {"mean=on,bits=3.5", Side::kValue, 3.75, 0.1639, 0.1775},
    {"preset=turboesm", Side::kValue, 3.0, 0.178, 0.193},
};

constexpr CodecPair kTypical[] = {
    {"", ""},
    {"bits=3.5", "bits=3.5"},
    {"preset=turboesm", "preset=turboesm"},
    {"bits=3", "bits=3"},
    {"bits=2.5", "bits=2.5"},
    {"bits=2", "bits=2"},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "turboquant",
    .summary =
        "random rotation and Lloyd-Max codes, one norm per token; mixed channel classes, residual signs, TurboESM",
    .paper = "Zandieh et al., TurboQuant, arXiv:2504.19874; TurboESM, arXiv:2603.26110",
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

}  // namespace kvant::turboquant
