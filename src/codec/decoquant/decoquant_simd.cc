// The fast verbs: strips of 16 rows through the kernels of parts/ to encode, tile kernels to read. No
// target-specific code here; the kernels are dispatched.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "base/check.h"
#include "codec/decoquant/decoquant.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/hadamard.h"
#include "codec/parts/strip.h"
#include "codec/parts/tile_kernels.h"
#include "codec/parts/trellis.h"

namespace kvant::decoquant {
namespace {

// ---- the map of a segment, on strips

// Multiplies or divides by the gains.
void ScaleByGains(const State& s, const SegmentMap& map, bool divide, float* strip) {
  if (map.maybe_gains == nullptr) return;
  for (int c = 0; c < s.shape.dim; ++c) {
    const float gain = map.gain(c, s.fold());
    const float factor = divide ? 1.0f / gain : gain;
    for (int r = 0; r < kStripRows; ++r) strip[c * kStripRows + r] *= factor;
  }
}

// A strip of folded rows is dim / fold strips of groups, so the reflectors serve both.
void Reflect(const State& s, const SegmentMap& map, bool forward, int num_strips, float* strips) {
  if (map.reflectors.dim == 0) return;
  const ReflectorKernels& kernels = GetReflectorKernels();
  (forward ? kernels.forward : kernels.back)(map.reflectors, num_strips * (s.shape.dim / s.fold()), strips);
}

void ToLatents(const State& s, const SegmentMap& map, int num_strips, float* strips) {
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
}

void QueriesToLatents(const State& s, const SegmentMap& map, float* strip) {
  Reflect(s, map, true, 1, strip);
  ScaleByGains(s, map, false, strip);
  if (map.mix) GetHadamardKernels().forward(s.shape.dim, strip);
}

// ---- parts of a block

const uint16_t* Halves(const std::byte* block, size_t ofs) { return reinterpret_cast<const uint16_t*>(block + ofs); }

// The tiles of a block as the tile kernels read them. Trellis codes are expanded to levels first: those of a
// block fit the first-level cache, and the kernels stay as they are.
class Tiles {
 public:
  Tiles(const State& s, const SegmentMap& map, const std::byte* block, ReadAhead* maybe_ahead)
      : matrix_{block + s.codes_ofs, map.bits, s.num_tiles, s.books->levels_or_null(), maybe_ahead} {
    if (!s.trellis) return;
    GetTrellisKernels().expand(s.order(), map.bits, s.num_tiles, matrix_.packed, levels_);
    for (size_t tile = 0; tile < std::size(bits_); ++tile) {
      bits_[tile] = static_cast<int>(tile) < s.num_tiles && map.bits[tile] > 0 ? 8 : 0;
    }
    matrix_ = {levels_, bits_, s.num_tiles, nullptr, maybe_ahead};
  }
  const TileMatrix& matrix() const { return matrix_; }

 private:
  TileMatrix matrix_;
  uint8_t bits_[kMaxStripDim / kTileChannels];
  alignas(64) std::byte levels_[kTokensPerPage * kMaxStripDim];
};

// Means of the page, as they are stored; zeros when there are none.
void StoreMeans(const State& s, const float* rows, std::byte* block, float* means) {
  std::fill_n(means, s.shape.dim, 0.0f);
  if (!s.centred) return;
  for (int t = 0; t < kTokensPerPage; ++t) {
    for (int c = 0; c < s.shape.dim; ++c) means[c] += rows[t * s.shape.dim + c];
  }
  for (int c = 0; c < s.shape.dim; ++c) means[c] /= kTokensPerPage;
  auto* stored = reinterpret_cast<uint16_t*>(block + s.means_ofs);
  GetFixedPointKernels().to_f16(means, s.shape.dim, stored);
  GetFixedPointKernels().from_f16(stored, s.shape.dim, means);
}

void LoadCentred(const State& s, const float* rows, const float* means, float* strip) {
  LoadStrip(rows, static_cast<size_t>(s.shape.dim), kStripRows, s.shape.dim, strip);
  if (!s.centred) return;
  for (int c = 0; c < s.shape.dim; ++c) {
    for (int r = 0; r < kStripRows; ++r) strip[c * kStripRows + r] -= means[c];
  }
}

Status StoreScales(const float* scales, std::byte* block, size_t ofs) {
  for (int t = 0; t < kTokensPerPage; ++t) {
    const F16 stored = ToF16(scales[t]);
    if (!std::isfinite(ToFloat(stored))) {
      return Status::InvalidArgument(
          StrFormat("decoquant: scale %g of token %d does not fit fp16", static_cast<double>(scales[t]), t));
    }
    reinterpret_cast<F16*>(block + ofs)[t] = stored;
  }
  return Status::Ok();
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
  alignas(64) float means[kMaxStripDim];
  StoreMeans(s, rows, block, means);
  float weights[kMaxStripDim];
  const GainQuantizer quantizer = {s.books, map.bits, s.num_tiles, ScaleWeights(s, map, weights), s.rule};
  Coded coded;
  (s.trellis ? EncodeTrellis : EncodeScalar)(s, map, quantizer, rows, means, &coded);
  KVANT_TRY(StoreScales(coded.scales, block, s.scales_ofs));
  std::byte* packed = block + s.codes_ofs;
  GetTileKernels().pack(s.order(), map.bits, s.num_tiles, coded.codes, packed);
  const size_t used = TileBytes(1) * static_cast<size_t>(s.total_bits);
  std::memset(packed + used, 0, s.layout.block_bytes() - s.codes_ofs - used);
  return Status::Ok();
}

// Unit values of the codes of a strip's rows [16, dim], times the rows' scales.
void LoadValues(const State& s, const SegmentMap& map, const uint8_t* codes, const float* scales, float* strip) {
  for (int tile = 0; tile < s.num_tiles; ++tile) {
    float values[1 << kMaxCodeWidth];
    const int count = 1 << (s.trellis ? kMaxCodeWidth : map.bits[tile]);  // trellis levels are bytes
    const Codebook& book = s.books->by_bits[map.bits[tile]];
    const bool looked_up = s.books->use_levels && map.bits[tile] <= 4;
    for (int code = 0; code < count; ++code) {
      const int level = looked_up ? s.books->levels.by_bits[map.bits[tile]][code] : code;
      values[code] = (static_cast<float>(level) - book.center) * book.step;
    }
    for (int c = tile * kTileChannels; c < (tile + 1) * kTileChannels; ++c) {
      for (int r = 0; r < kStripRows; ++r) strip[c * kStripRows + r] = values[codes[r * s.shape.dim + c]] * scales[r];
    }
  }
}

Status CheckFinite(const float* values, int count, bool negative_too, const char* what) {
  for (int i = 0; i < count; ++i) {
    if (std::isfinite(values[i]) && (negative_too || !std::signbit(values[i]))) continue;
    return Status::Corruption(StrFormat("decoquant: %s %d is not valid", what, i));
  }
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  KVANT_DCHECK(s.shape.dim <= kMaxStripDim);
  const SegmentMap map = MapOf(s, context.basis);
  const int dim = s.shape.dim;
  alignas(64) float scales[kTokensPerPage];
  alignas(64) float means[kMaxStripDim] = {};
  GetFixedPointKernels().from_f16(Halves(block, s.scales_ofs), kTokensPerPage, scales);
  if (s.centred) GetFixedPointKernels().from_f16(Halves(block, s.means_ofs), dim, means);
  KVANT_TRY(CheckFinite(scales, kTokensPerPage, false, "scale"));
  KVANT_TRY(CheckFinite(means, dim, true, "mean"));
  alignas(64) uint8_t codes[kTokensPerPage * kMaxStripDim];
  const Tiles tiles(s, map, block, nullptr);
  GetTileKernels().unpack(s.order(), tiles.matrix().bits, s.num_tiles, tiles.matrix().packed, codes);
  Strip strip;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    LoadValues(s, map, codes + t * dim, scales + t, strip.values);
    FromLatents(s, map, strip.values);
    StoreStrip(strip.values, kStripRows, dim, static_cast<size_t>(dim), rows + t * dim);
  }
  for (int t = 0; s.centred && t < kTokensPerPage; ++t) {
    for (int c = 0; c < dim; ++c) rows[t * dim + c] += means[c];
  }
  return Status::Ok();
}

// Prepared queries: queries float [heads][dim] (for the means), unit float [heads], offset int32 [heads],
// then the integer operand of the tile kernels.
struct PreparedView {
  float* queries;
  float* unit;
  int32_t* offset;
  int8_t* operand;

  PreparedView(const State& s, int heads, std::byte* prepared)
      : queries(reinterpret_cast<float*>(prepared)),
        unit(queries + heads * s.shape.dim),
        offset(reinterpret_cast<int32_t*>(unit + heads)),
        operand(reinterpret_cast<int8_t*>(offset + heads)) {}
};

// Planes of the integer query: one only where mixing has made all latent channels alike; else the strongest
// channel would set the step for all.
int Planes(const State& s, const SegmentMap& map) {
  return map.mix ? QueryPlanes(*std::max_element(map.bits, map.bits + s.num_tiles)) : 2;
}

// What the levels' centres add to every sum: the quantised query weighted with the centre of its tile.
int32_t CentreOffset(const State& s, const SegmentMap& map, const int8_t* columns, int planes) {
  double sum = 0.0;
  for (int tile = 0; tile < s.num_tiles; ++tile) {
    int total = 0;
    for (int c = tile * kTileChannels; c < (tile + 1) * kTileChannels; ++c) {
      total += planes == 2 ? columns[c] * 128 + columns[s.shape.dim + c] : columns[c];
    }
    sum += s.books->by_bits[map.bits[tile]].center * static_cast<double>(total);
  }
  return static_cast<int32_t>(std::nearbyint(sum));
}

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  const PreparedView view(s, heads, prepared);
  const auto dim = static_cast<size_t>(s.shape.dim);
  std::memcpy(view.queries, queries, dim * static_cast<size_t>(heads) * sizeof(float));
  Strip strip;
  LoadStrip(queries, dim, heads, s.shape.dim, strip.values);
  QueriesToLatents(s, map, strip.values);
  alignas(64) float latents[kMaxHeads * kMaxStripDim];
  StoreStrip(strip.values, heads, s.shape.dim, dim, latents);
  alignas(64) float steps[kMaxStripDim];
  for (int c = 0; c < s.shape.dim; ++c) steps[c] = s.books->by_bits[map.bits[c / kTileChannels]].step;
  const int planes = Planes(s, map);
  GetFixedPointKernels().quantize_query(latents, dim, heads, s.shape.dim, planes, steps, view.operand, view.unit,
                                        view.offset);
  for (int h = 0; h < heads; ++h)
    view.offset[h] = CentreOffset(s, map, view.operand + h * planes * s.shape.dim, planes);
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  const PreparedView view(s, heads, const_cast<std::byte*>(prepared));
  const FixedPointKernels& fixed = GetFixedPointKernels();
  alignas(64) float scales[kTokensPerPage];
  fixed.from_f16(Halves(block, s.scales_ofs), kTokensPerPage, scales);
  float bias[kMaxHeads] = {};
  if (s.centred) {
    alignas(64) float means[kMaxStripDim];
    fixed.from_f16(Halves(block, s.means_ofs), s.shape.dim, means);
    for (int h = 0; h < heads; ++h) bias[h] = fixed.dot(view.queries + h * s.shape.dim, means, s.shape.dim);
  }
  const int planes = Planes(s, map);
  alignas(64) int32_t sums[kMaxHeads * 2 * kTokensPerPage];
  GetTileKernels().score(Tiles(s, map, block, context.maybe_ahead).matrix(), view.operand, heads * planes, 0,
                         kTokensPerPage, sums);
  fixed.finish_scores(sums, heads, planes, 0, kTokensPerPage, view.unit, view.offset, 1, scales, bias, scores);
}

// Accumulator: [dim] sums of levels, [0] of 16 floats the sum of the weights with scales, and [dim] of means
// when centred.
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  const FixedPointKernels& fixed = GetFixedPointKernels();
  alignas(64) float scales[kTokensPerPage];
  fixed.from_f16(Halves(block, s.scales_ofs), kTokensPerPage, scales);
  alignas(64) int8_t operand[kMaxHeads * 2 * kTokensPerPage];
  float unit[kMaxHeads];
  float sum[kMaxHeads];
  const int planes = fixed.quantize_weights(weights, heads, scales, operand, unit, sum);
  GetTileKernels().accumulate(Tiles(s, map, block, context.maybe_ahead).matrix(), operand, heads, planes, unit, acc,
                              static_cast<size_t>(s.acc_dim));
  for (int h = 0; h < heads; ++h) acc[h * s.acc_dim + s.shape.dim] += sum[h];
  if (!s.centred) return;
  alignas(64) float means[kMaxStripDim];
  fixed.from_f16(Halves(block, s.means_ofs), s.shape.dim, means);
  for (int h = 0; h < heads; ++h) {
    float total = 0.0f;
    for (int t = 0; t < kTokensPerPage; ++t) total += weights[h * kTokensPerPage + t];
    float* out = acc + h * s.acc_dim + s.shape.dim + 16;
    for (int c = 0; c < s.shape.dim; ++c) out[c] += total * means[c];
  }
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, context.basis);
  Strip strip;
  LoadStrip(acc, static_cast<size_t>(s.acc_dim), heads, s.shape.dim, strip.values);
  for (int c = 0; c < s.shape.dim; ++c) {
    const Codebook& book = s.books->by_bits[map.bits[c / kTileChannels]];
    for (int h = 0; h < heads; ++h) {
      float& value = strip.values[c * kStripRows + h];
      value = (value - book.center * acc[h * s.acc_dim + s.shape.dim]) * book.step;
    }
  }
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
