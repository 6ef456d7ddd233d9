// The fast verbs: strips of 16 rows through the kernels of parts/ to encode, tile kernels to read. No
// target-specific code here; the kernels are dispatched.
#include <cstring>

#include "base/check.h"
#include "codec/decoquant/decoquant.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/hadamard.h"
#include "codec/parts/page_scalars.h"
#include "codec/parts/strip.h"
#include "codec/parts/trellis.h"

namespace kvant::decoquant {
namespace {

// ---- the map of a segment, on strips

// Multiplies or divides channel c by gains[c % fold]; null: by 1.
void ScaleBy(const F16* maybe_gains, int fold, int dim, bool divide, float* strip) {
  if (maybe_gains == nullptr) return;
  for (int c = 0; c < dim; ++c) {
    const float gain = ToFloat(maybe_gains[c % fold]);
    const float factor = divide ? 1.0f / gain : gain;
    for (int r = 0; r < kStripRows; ++r) strip[c * kStripRows + r] *= factor;
  }
}

void ScaleByGains(const State& s, const SegmentMap& map, bool divide, float* strip) {
  ScaleBy(map.maybe_gains, s.fold(), s.shape.dim, divide, strip);
}

void ScaleByMetric(const State& s, const SegmentMap& map, bool divide, float* strip) {
  ScaleBy(map.maybe_metric_gains, s.shape.dim, s.shape.dim, divide, strip);
}

// A strip of folded rows is dim / fold strips of groups, so the reflectors serve both.
void Reflect(const State& s, const SegmentMap& map, bool forward, int num_strips, float* strips) {
  if (map.reflectors.dim == 0) return;
  const ReflectorKernels& kernels = GetReflectorKernels();
  (forward ? kernels.forward : kernels.back)(map.reflectors, num_strips * (s.shape.dim / s.fold()), strips);
}

void ToLatents(const State& s, const SegmentMap& map, int num_strips, float* strips) {
  if (map.metric.count > 0) GetReflectorKernels().forward(map.metric, num_strips, strips);
  for (int i = 0; i < num_strips; ++i) ScaleByMetric(s, map, false, strips + i * s.shape.dim * kStripRows);
  Reflect(s, map, true, num_strips, strips);
  for (int i = 0; i < num_strips; ++i, strips += s.shape.dim * kStripRows) {
    ScaleByGains(s, map, true, strips);
    if (map.mix) GetHadamardKernels().forward(s.shape.dim, strips);
  }
}

void FromLatents(const State& s, const SegmentMap& map, float* strip) {
  if (map.mix) GetHadamardKernels().inverse(s.shape.dim, strip);
  ScaleByGains(s, map, false, strip);
  Reflect(s, map, false, 1, strip);
  ScaleByMetric(s, map, true, strip);
  if (map.metric.count > 0) GetReflectorKernels().back(map.metric, 1, strip);
}

void QueriesToLatents(const State& s, const SegmentMap& map, float* strip) {
  if (map.metric.count > 0) GetReflectorKernels().forward(map.metric, 1, strip);
  ScaleByMetric(s, map, true, strip);
  Reflect(s, map, true, 1, strip);
  ScaleByGains(s, map, false, strip);
  if (map.mix) GetHadamardKernels().forward(s.shape.dim, strip);
}

// ---- parts of a block

// `means` are zeros when a block has none.
void LoadCentred(const State& s, const float* rows, const float* means, float* strip) {
  LoadStrip(rows, static_cast<size_t>(s.shape.dim), kStripRows, s.shape.dim, strip);
  if (s.centred) SubtractPageMeans(means, s.shape.dim, strip);
}

// ---- verbs

// What encoding hands from rows to codes.
struct Coded {
  alignas(64) uint8_t codes[kTokensPerPage * kMaxStripDim];
  float scales[kTokensPerPage];
};

// Two strips at a time: the reflectors need little more than for one, and both fit the first-level cache.
void EncodeScalar(const State& s, const SegmentMap& map, const GainQuantizer& quantizer, const float* rows,
                  const float* means, Coded* out) {
  alignas(64) float strips[2 * kMaxStripDim * kStripRows];
  const int dim = s.shape.dim;
  for (int t = 0; t < kTokensPerPage; t += 2 * kStripRows) {
    for (int i = 0; i < 2; ++i) LoadCentred(s, rows + (t + i * kStripRows) * dim, means, strips + i * dim * kStripRows);
    ToLatents(s, map, 2, strips);
    for (int i = 0; i < 2; ++i) {
      const int first = t + i * kStripRows;
      GetGainQuantizerKernels().quantize(quantizer, strips + i * dim * kStripRows, out->codes + first * dim,
                                         out->scales + first);
    }
  }
}

void TicksOfPage(const State& s, const SegmentMap& map, const GainQuantizer& quantizer, const float* rows,
                 const float* means, int16_t* ticks, float* gains) {
  Strip strip;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    LoadCentred(s, rows + t * s.shape.dim, means, strip.values);
    ToLatents(s, map, 1, strip.values);
    GetTrellisKernels().ticks(quantizer, strip.values, ticks + t * s.shape.dim, gains + t);
  }
}

void EncodeTrellis(const State& s, const SegmentMap& map, const GainQuantizer& quantizer, const float* rows,
                   const float* means, Coded* out) {
  int16_t ticks[kTokensPerPage * kMaxStripDim];
  float gains[kTokensPerPage];
  TicksOfPage(s, map, quantizer, rows, means, ticks, gains);
  GetTrellisKernels().codes(quantizer, ticks, gains, out->codes, out->scales);
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  KVANT_DCHECK(s.shape.dim <= kMaxStripDim);
  const SegmentMap map = MapOf(s, context.basis);
  std::memset(block, 0, s.codes_ofs);
  alignas(64) float means[kMaxStripDim] = {};
  if (s.centred) StorePageMeans(rows, s.shape.dim, Halves(block, s.means_ofs), means);
  float weights[kMaxStripDim];
  const GainQuantizer quantizer = {s.books, map.bits, s.num_tiles, ScaleWeights(s, map, weights), s.rule};
  Coded coded;
  (s.trellis ? EncodeTrellis : EncodeScalar)(s, map, quantizer, rows, means, &coded);
  KVANT_TRY(StoreTokenScales("decoquant", coded.scales, Halves(block, s.scales_ofs)));
  std::byte* packed = block + s.codes_ofs;
  PackLatents(CodesOf(s, map), coded.codes, packed);
  const size_t used = TileBytes(1) * static_cast<size_t>(s.total_bits);
  std::memset(packed + used, 0, s.layout.block_bytes() - s.codes_ofs - used);
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  KVANT_DCHECK(s.shape.dim <= kMaxStripDim);
  const SegmentMap map = MapOf(s, context.basis);
  const int dim = s.shape.dim;
  KVANT_TRY(CheckTokenScales("decoquant", Halves(block, s.scales_ofs)));
  alignas(64) float scales[kTokensPerPage];
  LoadTokenScales(Halves(block, s.scales_ofs), scales);
  alignas(64) float means[kMaxStripDim];
  if (s.centred) {
    KVANT_TRY(CheckPageMeans("decoquant", Halves(block, s.means_ofs), dim));
    LoadPageMeans(Halves(block, s.means_ofs), dim, means);
  }
  const LatentCodes latents = CodesOf(s, map);
  alignas(64) uint8_t codes[kTokensPerPage * kMaxStripDim];
  UnpackLatents(latents, block + s.codes_ofs, codes);
  Strip strip;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    LoadLatents(latents, codes + t * dim, scales + t, strip.values);
    FromLatents(s, map, strip.values);
    StoreStrip(strip.values, kStripRows, dim, static_cast<size_t>(dim), rows + t * dim);
  }
  for (int t = 0; s.centred && t < kTokensPerPage; ++t) {
    for (int c = 0; c < dim; ++c) rows[t * dim + c] += means[c];
  }
  return Status::Ok();
}

// Planes of the integer query: one only where mixing has made all latent channels alike; else the strongest
// channel would set the step for all.
int Planes(const State& s, const SegmentMap& map) { return map.mix ? QueryPlanes(CodesOf(s, map).widest()) : 2; }

// Prepared queries: queries float [heads][dim] (for the means), then the integers of the latents.
LatentQuery PreparedLatents(const State& s, const SegmentMap& map, std::byte* prepared, int heads) {
  return {prepared + sizeof(float) * static_cast<size_t>(heads * s.shape.dim), heads, Planes(s, map)};
}

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  const auto dim = static_cast<size_t>(s.shape.dim);
  std::memcpy(prepared, queries, dim * static_cast<size_t>(heads) * sizeof(float));
  Strip strip;
  LoadStrip(queries, dim, heads, s.shape.dim, strip.values);
  QueriesToLatents(s, map, strip.values);
  alignas(64) float latents[kMaxHeads * kMaxStripDim];
  StoreStrip(strip.values, heads, s.shape.dim, dim, latents);
  PrepareLatents(CodesOf(s, map), latents, dim, heads, PreparedLatents(s, map, prepared, heads));
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  alignas(64) float scales[kTokensPerPage];
  LoadTokenScales(Halves(block, s.scales_ofs), scales);
  float bias[kMaxHeads] = {};
  if (s.centred) {
    const auto* queries = reinterpret_cast<const float*>(prepared);
    ScorePageMeans(Halves(block, s.means_ofs), s.shape.dim, queries, heads, bias);
  }
  ScoreLatents(CodesOf(s, map), block + s.codes_ofs, scales,
               PreparedLatents(s, map, const_cast<std::byte*>(prepared), heads), heads, bias, Store::kSet, scores,
               context.maybe_ahead);
}

// Accumulator: [dim] sums of levels, [0] of 16 floats the sum of the weights with scales, and [dim] of means
// when centred.
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  const auto stride = static_cast<size_t>(s.acc_dim);
  alignas(64) float scales[kTokensPerPage];
  LoadTokenScales(Halves(block, s.scales_ofs), scales);
  AccumulateLatents(CodesOf(s, map), block + s.codes_ofs, scales, weights, heads, acc, stride, acc + s.shape.dim,
                    context.maybe_ahead);
  if (!s.centred) return;
  AccumulatePageMeans(Halves(block, s.means_ofs), s.shape.dim, weights, heads, acc + s.shape.dim + 16, stride);
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  Strip strip;
  LoadStrip(acc, static_cast<size_t>(s.acc_dim), heads, s.shape.dim, strip.values);
  RestoreLatents(CodesOf(s, map), acc + s.shape.dim, static_cast<size_t>(s.acc_dim), heads, strip.values);
  FromLatents(s, map, strip.values);
  StoreStrip(strip.values, heads, s.shape.dim, static_cast<size_t>(s.shape.dim), out);
  for (int h = 0; s.centred && h < heads; ++h) {
    const float* means = acc + h * s.acc_dim + s.shape.dim + 16;
    for (int c = 0; c < s.shape.dim; ++c) out[h * s.shape.dim + c] += means[c];
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

}  // namespace kvant::decoquant
