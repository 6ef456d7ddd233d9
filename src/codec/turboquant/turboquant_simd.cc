// The fast verbs: strips or rows of 16 tokens through the kernels of parts/ to encode, runs of latents to read. No
// target-specific code here; the kernels are dispatched.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/parts/fixed_point.h"
#include "codec/parts/hadamard.h"
#include "codec/parts/page_scalars.h"
#include "codec/parts/sketch_kernels.h"
#include "codec/parts/strip.h"
#include "codec/turboquant/turboquant.h"

namespace kvant::turboquant {
namespace {

// Rows or latents of up to 16 tokens or heads [16, dim].
struct Rows {
  alignas(64) float values[kStripRows * kMaxStripDim];
};

// ---- the map of a segment

enum Way { kByChannel, kByRow };

// out [count, n] += rows [count, n] S^T, or rows S, for a square matrix S [n, n].
void AddProduct(const float* rows, int count, const Sketch& matrix, Way way, float* out) {
  const auto n = static_cast<size_t>(matrix.dim);
  GetSketchKernels().list_product({.rows = rows,
                                   .row_stride = n,
                                   .num_rows = count,
                                   .list = kEveryIndex.data(),
                                   .list_size = matrix.dim,
                                   .table = way == kByRow ? matrix.by_row.data() : matrix.by_channel.data(),
                                   .table_stride = n,
                                   .columns = matrix.dim},
                                  out, n);
}

// The channels of a dense class in a strip, turned or turned back.
void RotateDense(const Sketch& matrix, bool back, float* strip) {
  Rows in;
  const int n = matrix.dim;
  StoreStrip(strip, kStripRows, n, static_cast<size_t>(n), in.values);
  Rows out = {};
  AddProduct(in.values, kStripRows, matrix, back ? kByRow : kByChannel, out.values);
  const float norm = 1.0f / std::sqrt(static_cast<float>(n));
  for (int i = 0; i < n * kStripRows; ++i) out.values[i] *= norm;
  LoadStrip(out.values, static_cast<size_t>(n), kStripRows, n, strip);
}

void RotateClass(const State& s, const SegmentView& view, const ChannelClass& part, bool back, float* strip) {
  switch (s.rotation) {
    case Rotation::kHadamard:
      return (back ? GetHadamardKernels().inverse : GetHadamardKernels().forward)(part.channels(), strip);
    case Rotation::kDense:
      return RotateDense(*part.dense, back, strip);
    case Rotation::kSvd:
      return (back ? GetReflectorKernels().back : GetReflectorKernels().forward)(view.reflectors(), 1, strip);
    case Rotation::kNone:
      return;
  }
}

// A strip in the order of channels -> in the order of latents, and back.
void Reorder(const State& s, const SegmentView& view, bool back, float* strip) {
  if (s.num_classes < 2) return;
  uint8_t order[kMaxStripDim];
  view.ChannelOrder(order);
  Strip moved;
  for (int i = 0; i < s.shape.dim; ++i) {
    const int from = back ? i : order[i];
    const int to = back ? order[i] : i;
    std::copy_n(strip + from * kStripRows, kStripRows, moved.values + to * kStripRows);
  }
  std::copy_n(moved.values, s.shape.dim * kStripRows, strip);
}

// Rows and queries take the same way: the map is orthogonal.
void ToLatents(const State& s, const SegmentView& view, float* strip) {
  Reorder(s, view, false, strip);
  for (const ChannelClass& part : s.used_classes()) RotateClass(s, view, part, false, strip + part.first * kStripRows);
}

void FromLatents(const State& s, const SegmentView& view, float* strip) {
  for (const ChannelClass& part : s.used_classes()) RotateClass(s, view, part, true, strip + part.first * kStripRows);
  Reorder(s, view, true, strip);
}

// ---- encode

// What encoding hands from rows to the block: a page, class by class.
struct Coded {
  alignas(64) uint8_t codes[kTokensPerPage * kMaxStripDim];  // of class k from first(k) * 64 on, [64][channels]
  alignas(64) uint8_t signs[kTokensPerPage * kMaxStripDim];  // [64][dim]
  float scales[2][kTokensPerPage];
  float norms[kTokensPerPage];

  uint8_t* class_codes(const ChannelClass& part, int token) {
    return codes + part.first * kTokensPerPage + token * part.channels();
  }
};

// Codes of a class of 16 tokens from `token` on; `strip` holds its channels.
void EncodeClass(const State& s, const SegmentView& view, int index, int token, const float* strip, Coded* out) {
  const ChannelClass& part = s.classes[index];
  uint8_t* const codes = out->class_codes(part, token);
  if (!s.calibrated) {
    const GainQuantizer quantizer = {&LloydMaxCodebooks(), part.bits, part.num_tiles, nullptr, s.rule};
    return GetGainQuantizerKernels().quantize(quantizer, strip, codes, out->scales[index] + token);
  }
  Rows rows;
  Rows units;
  StoreStrip(strip, kStripRows, part.channels(), static_cast<size_t>(part.channels()), rows.values);
  GetTableKernels().quantize(view.table(), rows.values, kStripRows * part.channels(), 1.0f, codes, units.values);
}

// Signs and norms of what the codes of 16 tokens lost; `strip` holds their latents and is used up.
void EncodeResidual(const State& s, const SegmentView& view, int token, float* strip, Coded* out) {
  const int dim = s.shape.dim;
  Rows scratch;
  for (int i = 0; i < s.num_classes; ++i) {
    const ChannelClass& part = s.classes[i];
    float stored[kStripRows];
    for (int r = 0; r < kStripRows; ++r) stored[r] = ToFloat(ToF16(out->scales[i][token + r]));
    LoadLatents(view.codes(part), out->class_codes(part, token), stored, scratch.values);
    for (int k = 0; k < part.channels() * kStripRows; ++k) strip[part.first * kStripRows + k] -= scratch.values[k];
  }
  StoreStrip(strip, kStripRows, dim, static_cast<size_t>(dim), scratch.values);
  for (int r = 0; r < kStripRows; ++r) {
    const float* row = scratch.values + r * dim;
    out->norms[token + r] = std::sqrt(GetFixedPointKernels().dot(row, row, dim));
  }
  std::fill_n(strip, kStripRows * dim, 0.0f);
  AddProduct(scratch.values, kStripRows, *s.sketch, kByChannel, strip);
  GetSketchKernels().sign_codes(strip, kStripRows * dim, out->signs + token * dim);
}

Status StoreBlock(const State& s, const SegmentView& view, const Coded& coded, std::byte* block) {
  for (int i = 0; i < s.num_classes; ++i) {
    const ChannelClass& part = s.classes[i];
    if (!s.calibrated) KVANT_TRY(StoreTokenScales("turboquant", coded.scales[i], Halves(block, part.scales_ofs)));
    PackLatents(view.codes(part), coded.codes + part.first * kTokensPerPage, block + part.codes_ofs);
  }
  if (!s.sketched()) return Status::Ok();
  PackLatents(view.signs(), coded.signs, block + s.signs_ofs);
  return StoreTokenScales("turboquant", coded.norms, Halves(block, s.norms_ofs));
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  const SegmentView view(s, context.basis);
  const int dim = s.shape.dim;
  std::memset(block, 0, s.layout.block_bytes());
  alignas(64) float means[kMaxStripDim];
  if (s.centred) StorePageMeans(rows, dim, Halves(block, s.means_ofs), means);
  Coded coded;
  Strip strip;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    LoadStrip(rows + t * dim, static_cast<size_t>(dim), kStripRows, dim, strip.values);
    if (s.centred) SubtractPageMeans(means, dim, strip.values);
    ToLatents(s, view, strip.values);
    for (int i = 0; i < s.num_classes; ++i) {
      EncodeClass(s, view, i, t, strip.values + s.classes[i].first * kStripRows, &coded);
    }
    if (s.sketched()) EncodeResidual(s, view, t, strip.values, &coded);
  }
  return StoreBlock(s, view, coded, block);
}

// ---- decode

// Codes and scales of a block, unpacked.
void LoadBlock(const State& s, const SegmentView& view, const std::byte* block, Coded* out) {
  for (int i = 0; i < s.num_classes; ++i) {
    const ChannelClass& part = s.classes[i];
    TokenScales(s, part, block, out->scales[i]);
    UnpackLatents(view.codes(part), block + part.codes_ofs, out->class_codes(part, 0));
  }
  if (!s.sketched()) return;
  ResidualScales(s, block, out->norms);
  UnpackLatents(view.signs(), block + s.signs_ofs, out->signs);
}

// Adds the residual that the signs of 16 tokens stand for to their latents; `rows` [16, dim] is overwritten.
void AddResidual(const State& s, const Coded& coded, int token, float* rows, float* strip) {
  const int dim = s.shape.dim;
  Rows signs;
  GetSketchKernels().code_signs(coded.signs + token * dim, kStripRows * dim, signs.values);
  std::fill_n(rows, kStripRows * dim, 0.0f);
  AddProduct(signs.values, kStripRows, *s.sketch, kByRow, rows);
  for (int c = 0; c < dim; ++c) {
    for (int r = 0; r < kStripRows; ++r) strip[c * kStripRows + r] += coded.norms[token + r] * rows[r * dim + c];
  }
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  KVANT_TRY(CheckBlock(s, block));
  const SegmentView view(s, context.basis);
  const int dim = s.shape.dim;
  Coded coded;
  LoadBlock(s, view, block, &coded);
  alignas(64) float means[kMaxStripDim];
  if (s.centred) LoadPageMeans(Halves(block, s.means_ofs), dim, means);
  Strip strip;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    if (s.num_classes == 0) std::fill_n(strip.values, dim * kStripRows, 0.0f);
    for (int i = 0; i < s.num_classes; ++i) {
      const ChannelClass& part = s.classes[i];
      LoadLatents(view.codes(part), coded.class_codes(part, t), coded.scales[i] + t,
                  strip.values + part.first * kStripRows);
    }
    if (s.sketched()) AddResidual(s, coded, t, rows + t * dim, strip.values);
    FromLatents(s, view, strip.values);
    StoreStrip(strip.values, kStripRows, dim, static_cast<size_t>(dim), rows + t * dim);
  }
  for (int t = 0; s.centred && t < kTokensPerPage; ++t) {
    for (int c = 0; c < dim; ++c) rows[t * dim + c] += means[c];
  }
  return Status::Ok();
}

// ---- prepare_query, score

// Prepared queries: float [heads][dim] (for the means), then the integers of each class and of the residual.
LatentQueries PreparedRuns(const State& s, int heads, std::byte* prepared) {
  return {prepared + sizeof(float) * static_cast<size_t>(heads * s.shape.dim), heads};
}

// One plane only where rotation has made all channels alike; else the strongest would set the step for all.
int Planes(const State& s, const ChannelClass& part) {
  const bool mixed = s.rotation == Rotation::kHadamard || s.rotation == Rotation::kDense;
  return mixed ? QueryPlanes(part.bits[0]) : 2;
}
// As for qjl: the sketch of a query has 15 bits.
constexpr int kResidualPlanes = 2;

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  const int dim = s.shape.dim;
  const auto stride = static_cast<size_t>(dim);
  std::memcpy(prepared, queries, stride * static_cast<size_t>(heads) * sizeof(float));
  Strip strip;
  LoadStrip(queries, stride, heads, dim, strip.values);
  ToLatents(s, view, strip.values);
  Rows latents;
  StoreStrip(strip.values, heads, dim, stride, latents.values);
  LatentQueries runs = PreparedRuns(s, heads, prepared);
  for (const ChannelClass& part : s.used_classes()) {
    const LatentQuery query = runs.Next(part.channels(), Planes(s, part));
    PrepareLatents(view.codes(part), latents.values + part.first, stride, heads, query);
  }
  if (!s.sketched()) return;
  Rows sketches = {};
  AddProduct(latents.values, heads, *s.sketch, kByChannel, sketches.values);
  PrepareLatents(view.signs(), sketches.values, stride, heads, runs.Next(dim, kResidualPlanes));
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  float bias[kMaxHeads] = {};
  if (s.centred) {
    ScorePageMeans(Halves(block, s.means_ofs), s.shape.dim, reinterpret_cast<const float*>(prepared), heads, bias);
  }
  LatentQueries runs = PreparedRuns(s, heads, const_cast<std::byte*>(prepared));
  alignas(64) float scales[kTokensPerPage];
  const float* first_bias = bias;  // the first run sets the scores, the others add
  const auto score = [&](const LatentCodes& codes, size_t ofs, const LatentQuery& query) {
    ScoreLatents(codes, block + ofs, scales, query, heads, first_bias, first_bias ? Store::kSet : Store::kAdd, scores,
                 context.maybe_ahead);
    first_bias = nullptr;
  };
  for (const ChannelClass& part : s.used_classes()) {
    TokenScales(s, part, block, scales);
    score(view.codes(part), part.codes_ofs, runs.Next(part.channels(), Planes(s, part)));
  }
  if (!s.sketched()) return;
  ResidualScales(s, block, scales);
  score(view.signs(), s.signs_ofs, runs.Next(s.shape.dim, kResidualPlanes));
}

// ---- accumulate, finish

// Accumulator: [dim] sums of levels, [k] of 16 floats the sum of the weights with the scales of class k, and [dim] of
// means when centred.
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  const auto stride = static_cast<size_t>(s.acc_dim);
  alignas(64) float scales[kTokensPerPage];
  for (int i = 0; i < s.num_classes; ++i) {
    const ChannelClass& part = s.classes[i];
    TokenScales(s, part, block, scales);
    AccumulateLatents(view.codes(part), block + part.codes_ofs, scales, weights, heads, acc + part.first, stride,
                      acc + s.shape.dim + i, context.maybe_ahead);
  }
  if (!s.centred) return;
  AccumulatePageMeans(Halves(block, s.means_ofs), s.shape.dim, weights, heads, acc + s.shape.dim + 16, stride);
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const SegmentView view(s, context.basis);
  const int dim = s.shape.dim;
  const auto stride = static_cast<size_t>(s.acc_dim);
  Strip strip;
  LoadStrip(acc, stride, heads, dim, strip.values);
  for (int i = 0; i < s.num_classes; ++i) {
    const ChannelClass& part = s.classes[i];
    RestoreLatents(view.codes(part), acc + dim + i, stride, heads, strip.values + part.first * kStripRows);
  }
  FromLatents(s, view, strip.values);
  StoreStrip(strip.values, heads, dim, static_cast<size_t>(dim), out);
  for (int h = 0; s.centred && h < heads; ++h) {
    const float* means = acc + h * s.acc_dim + dim + 16;
    for (int c = 0; c < dim; ++c) out[h * dim + c] += means[c];
  }
}

}  // namespace

const CodecVerbs* SimdVerbs() {
  static constexpr CodecVerbs kVerbs = {.encode = Encode,
                                        .decode = Decode,
                                        .prepare_query = PrepareQuery,
                                        .score = Score,
                                        .accumulate = Accumulate,
                                        .finish = Finish};
  return &kVerbs;
}

}  // namespace kvant::turboquant
