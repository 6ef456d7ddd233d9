// The fast verbs: 16 tokens at a time through the kernels of parts/ to encode, runs of latents to read. No
// target-specific code here; the kernels are dispatched.
#include <algorithm>
#include <cstring>

#include "codec/lowrank/lowrank.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/hadamard.h"
#include "codec/parts/page_scalars.h"
#include "codec/parts/sketch_kernels.h"
#include "codec/parts/strip.h"

namespace kvant::lowrank {
namespace {

// 16 rows [16, dim].
struct Rows {
  alignas(64) float values[kStripRows * kMaxStripDim];
};

// out [count, dim] += factors [count, 16] table [the first n of 16, dim].
void AddProduct(const float* factors, int count, int n, const float* table, int dim, float* out) {
  GetSketchKernels().list_product({.rows = factors,
                                   .row_stride = kTileChannels,
                                   .num_rows = count,
                                   .list = kEveryIndex.data(),
                                   .list_size = n,
                                   .table = table,
                                   .table_stride = static_cast<size_t>(dim),
                                   .columns = dim},
                                  out, static_cast<size_t>(dim));
}

// rows [count, dim], rotated or rotated back in place; count <= 16.
void Rotate(const State& s, bool back, int count, float* rows) {
  if (!s.rotated) return;
  const auto dim = static_cast<size_t>(s.shape.dim);
  Strip strip;
  LoadStrip(rows, dim, count, s.shape.dim, strip.values);
  (back ? GetHadamardKernels().inverse : GetHadamardKernels().forward)(s.shape.dim, strip.values);
  StoreStrip(strip.values, count, s.shape.dim, dim, rows);
}

// ---- encode

// A segment's directions as encoding needs them: one row per factor.
struct Directions {
  alignas(64) float values[kMaxRank * kMaxStripDim];
  alignas(64) float mean[kMaxStripDim];
  float inverse_norms[kMaxRank];

  Directions(const State& s, const Factors& factors) {
    if (!factors.present()) return;
    LoadPageMeans(factors.mean, s.shape.dim, mean);
    for (int j = 0; j < s.rank; ++j) {
      float* direction = values + j * s.shape.dim;
      LoadDirection(s, factors, j, direction);
      const float norm = GetFixedPointKernels().dot(direction, direction, s.shape.dim);
      inverse_norms[j] = norm > 0.0f ? 1.0f / norm : 0.0f;
    }
  }
};

// 16 rows of a page from `token` on -> what is decomposed.
void LoadLatentRows(const State& s, const Factors& factors, const Directions& directions, const float* rows, int token,
                    Rows* scratch, float* out) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  if (s.rotated) {
    LoadStrip(rows + static_cast<size_t>(token) * dim, dim, kStripRows, s.shape.dim, scratch->values);
    GetHadamardKernels().forward(s.shape.dim, scratch->values);
    StoreStrip(scratch->values, kStripRows, s.shape.dim, dim, out);
  } else {
    std::copy_n(rows + static_cast<size_t>(token) * dim, kStripRows * dim, out);
  }
  for (int r = 0; factors.present() && r < kStripRows; ++r) {
    for (int c = 0; c < s.shape.dim; ++c) out[r * s.shape.dim + c] -= directions.mean[c];
  }
}

// rows [16, dim] += sign times what the factors [16][rank] stand for.
void AddFactors(const State& s, const Factors& factors, const Directions& directions, const uint8_t* codes, float sign,
                float* rows) {
  if (!factors.present()) return;
  const float center = static_cast<float>((1 << s.factor_bits) - 1) * 0.5f;
  float values[kStripRows * kTileChannels];
  for (int r = 0; r < kStripRows; ++r) {
    for (int j = 0; j < s.rank; ++j) {
      values[r * kTileChannels + j] = sign * (static_cast<float>(codes[r * s.rank + j]) - center);
    }
  }
  AddProduct(values, kStripRows, s.rank, directions.values, s.shape.dim, rows);
}

void FitFactors(const State& s, const Factors& factors, const Directions& directions, const float* rows,
                uint8_t* codes) {
  if (!factors.present()) return;
  const int dim = s.shape.dim;
  float dots[kMaxRank];
  for (int r = 0; r < kStripRows; ++r) {
    GetFixedPointKernels().dots(directions.values, s.rank, rows + r * dim, dim, dots);
    for (int j = 0; j < s.rank; ++j) codes[r * s.rank + j] = FactorCode(s, dots[j] * directions.inverse_norms[j]);
  }
}

// Codes of the residual [16, dim] of the tokens from `token` on; what they lose stays in its place. A group's codes are
// [code_rows][channels] from code_rows * first channel on, with the tokens from row `code_row` on.
void CodeResidual(const State& s, const PageChoice& choice, int token, float* residual, int code_rows, int code_row,
                  uint8_t* codes) {
  alignas(64) float units[kGroupChannels];
  for (int g = 0; g < s.num_groups(); ++g) {
    const int channels = s.group_channels(g);
    uint8_t* out = codes + code_rows * s.group_first(g) + code_row * channels;
    for (int r = 0; r < kStripRows; ++r, out += channels) {
      const float scale = choice.scale(g, token + r);
      float* values = residual + r * s.shape.dim + s.group_first(g);
      GetTableKernels().quantize(*s.table, values, channels, scale > 0.0f ? 1.0f / scale : 0.0f, out, units);
      for (int c = 0; c < channels; ++c) values[c] -= scale * units[c];
    }
  }
}

double Energy(const float* rows, int dim) {
  double energy = 0.0;
  for (int r = 0; r < kStripRows; ++r) energy += GetFixedPointKernels().dot(rows + r * dim, rows + r * dim, dim);
  return energy;
}

double Refine(const State& s, const Factors& factors, const float* rows, const PageChoice* maybe_from,
              uint8_t* new_factors, float* largest) {
  const Directions directions(s, factors);
  const int dim = s.shape.dim;
  alignas(64) uint8_t unused[kStripRows * kMaxStripDim];
  Rows latents;
  Rows rest;
  double error = 0.0;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    LoadLatentRows(s, factors, directions, rows, t, &rest, latents.values);
    std::copy_n(latents.values, kStripRows * dim, rest.values);
    if (maybe_from) {
      const uint8_t* codes = maybe_from->factors + t * s.rank;
      AddFactors(s, factors, directions, codes, -1.0f, rest.values);
      CodeResidual(s, *maybe_from, t, rest.values, kStripRows, 0, unused);
      error += Energy(rest.values, dim);
      AddFactors(s, factors, directions, codes, 1.0f, rest.values);  // the rows less their codes
    }
    FitFactors(s, factors, directions, rest.values, new_factors + t * s.rank);
    AddFactors(s, factors, directions, new_factors + t * s.rank, -1.0f, latents.values);
    for (int g = 0; g < s.num_groups(); ++g) {
      for (int r = 0; r < kStripRows; ++r) {
        const float* group = latents.values + r * dim + s.group_first(g);
        largest[g * kTokensPerPage + t + r] = GetTableKernels().largest(group, s.group_channels(g));
      }
    }
  }
  return error;
}

void StoreCodes(const State& s, const Factors& factors, const float* rows, const PageChoice& choice, std::byte* block) {
  const Directions directions(s, factors);
  alignas(64) uint8_t codes[kTokensPerPage * kMaxStripDim];
  Rows latents;
  Rows scratch;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    LoadLatentRows(s, factors, directions, rows, t, &scratch, latents.values);
    AddFactors(s, factors, directions, choice.factors + t * s.rank, -1.0f, latents.values);
    CodeResidual(s, choice, t, latents.values, kTokensPerPage, t, codes);
  }
  for (int g = 0; g < s.num_groups(); ++g) {
    PackLatents(s.codes(g), codes + s.group_first(g) * kTokensPerPage, block + s.group_ofs(g));
  }
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  std::memset(block, 0, s.layout.block_bytes());
  const Result<PageChoice> choice = ChoosePage(s, factors, rows, Refine);
  if (!choice.ok()) return choice.status();
  StoreChoice(s, *choice, block);
  StoreCodes(s, factors, rows, *choice, block);
  return Status::Ok();
}

// ---- decode

// 16 tokens of Q -> rows [16, dim]; `codes` of all groups unpacked.
void LoadCodes(const State& s, const uint8_t* codes, const float* scales, int token, float* rows) {
  for (int g = 0; g < s.num_groups(); ++g) {
    const int channels = s.group_channels(g);
    Strip strip;
    LoadLatents(s.codes(g), codes + s.group_first(g) * kTokensPerPage + token * channels,
                scales + g * kTokensPerPage + token, strip.values);
    StoreStrip(strip.values, kStripRows, channels, static_cast<size_t>(s.shape.dim), rows + s.group_first(g));
  }
}

// rows [64, dim] += the mean and the low-rank part.
void AddLowRank(const State& s, const Factors& factors, const std::byte* block, float* rows) {
  const int dim = s.shape.dim;
  alignas(64) float table[kTileChannels * kMaxStripDim];
  alignas(64) float mean[kMaxStripDim];
  uint8_t digits[kTokensPerPage * kTileChannels];
  LoadDigitTable(s, factors, table);
  LoadPageMeans(factors.mean, dim, mean);
  UnpackLatents(s.factors(), block + s.factors_ofs, digits);
  const float center = s.digit_books.by_bits[s.digit_bits].center;
  float values[kTokensPerPage * kTileChannels];
  for (int i = 0; i < kTokensPerPage * kTileChannels; ++i) values[i] = static_cast<float>(digits[i]) - center;
  for (int t = 0; t < kTokensPerPage; ++t) {
    for (int c = 0; c < dim; ++c) rows[t * dim + c] += mean[c];
  }
  AddProduct(values, kTokensPerPage, kTileChannels, table, dim, rows);
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const int dim = s.shape.dim;
  KVANT_TRY(CheckBlock(s, block));
  alignas(64) uint8_t codes[kTokensPerPage * kMaxStripDim];
  float scales[kMaxGroups * kTokensPerPage];
  for (int g = 0; g < s.num_groups(); ++g) {
    LoadScales(s, block, g, scales + g * kTokensPerPage);
    UnpackLatents(s.codes(g), block + s.group_ofs(g), codes + s.group_first(g) * kTokensPerPage);
  }
  for (int t = 0; t < kTokensPerPage; t += kStripRows) LoadCodes(s, codes, scales, t, rows + t * dim);
  if (factors.present()) AddLowRank(s, factors, block, rows);
  for (int t = 0; t < kTokensPerPage; t += kStripRows) Rotate(s, true, kStripRows, rows + t * dim);
  return Status::Ok();
}

// ---- prepare_query, score

// Prepared queries: bias float [heads] (query . mean), then the integers of each group and of the factors.
class Prepared {
 public:
  Prepared(const State& s, int heads, std::byte* bytes)
      : bias_(reinterpret_cast<float*>(bytes)),
        planes_(s.rotated ? QueryPlanes(s.tile_bits[0]) : 2),
        queries_(bytes + sizeof(float) * static_cast<size_t>(heads), heads) {}
  float* bias() const { return bias_; }
  /// Rotated channels are alike; else the strongest would set the step for all, as the highest digits do for factors.
  LatentQuery NextGroup(int channels) { return queries_.Next(channels, planes_); }
  LatentQuery NextFactors() { return queries_.Next(kTileChannels, 2); }

 private:
  float* bias_;
  int planes_;
  LatentQueries queries_;
};

// Products of the queries [heads, dim] with the mean and the digits' directions.
void PrepareLowRank(const State& s, const Factors& factors, const float* queries, int heads, Prepared* prepared) {
  const int dim = s.shape.dim;
  alignas(64) float table[kTileChannels * kMaxStripDim];
  alignas(64) float products[kMaxHeads * kTileChannels];
  LoadDigitTable(s, factors, table);
  ScorePageMeans(factors.mean, dim, queries, heads, prepared->bias());
  for (int h = 0; h < heads; ++h) {
    GetFixedPointKernels().dots(table, kTileChannels, queries + h * dim, dim, products + h * kTileChannels);
  }
  PrepareLatents(s.factors(), products, kTileChannels, heads, prepared->NextFactors());
}

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const auto dim = static_cast<size_t>(s.shape.dim);
  Rows rotated;
  std::copy_n(queries, static_cast<size_t>(heads) * dim, rotated.values);
  Rotate(s, false, heads, rotated.values);
  Prepared runs(s, heads, prepared);
  std::fill_n(runs.bias(), heads, 0.0f);
  for (int g = 0; g < s.num_groups(); ++g) {
    PrepareLatents(s.codes(g), rotated.values + s.group_first(g), dim, heads, runs.NextGroup(s.group_channels(g)));
  }
  if (factors.present()) PrepareLowRank(s, factors, rotated.values, heads, &runs);
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  Prepared runs(s, heads, const_cast<std::byte*>(prepared));
  for (int g = 0; g < s.num_groups(); ++g) {
    alignas(64) float scales[kTokensPerPage];
    LoadScales(s, block, g, scales);
    ScoreLatents(s.codes(g), block + s.group_ofs(g), scales, runs.NextGroup(s.group_channels(g)), heads,
                 g == 0 ? runs.bias() : nullptr, g == 0 ? Store::kSet : Store::kAdd, scores, context.maybe_ahead);
  }
  if (!factors.present()) return;
  ScoreLatents(s.factors(), block + s.factors_ofs, nullptr, runs.NextFactors(), heads, nullptr, Store::kAdd, scores,
               context.maybe_ahead);
}

// ---- accumulate, finish

// Accumulator: [dim] levels of Q, [16] digits, then 16 floats: the sums of weights with the scales of each group, and
// the sum of the weights alone.
constexpr int kWeightSum = kMaxGroups;

void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const auto stride = static_cast<size_t>(s.acc_dim);
  float* const sums = acc + s.shape.dim + kTileChannels;
  for (int g = 0; g < s.num_groups(); ++g) {
    alignas(64) float scales[kTokensPerPage];
    LoadScales(s, block, g, scales);
    AccumulateLatents(s.codes(g), block + s.group_ofs(g), scales, weights, heads, acc + s.group_first(g), stride,
                      sums + g, context.maybe_ahead);
  }
  if (!factors.present()) return;
  AccumulateLatents(s.factors(), block + s.factors_ofs, nullptr, weights, heads, acc + s.shape.dim, stride,
                    sums + kWeightSum, context.maybe_ahead);
}

// out [heads, dim] += the mean and the low-rank part of accumulators.
void FinishLowRank(const State& s, const Factors& factors, const float* acc, int heads, float* out) {
  const int dim = s.shape.dim;
  const auto stride = static_cast<size_t>(s.acc_dim);
  const float* const sums = acc + dim + kTileChannels + kWeightSum;
  alignas(64) float table[kTileChannels * kMaxStripDim];
  alignas(64) float mean[kMaxStripDim];
  float digits[kMaxHeads * kTileChannels];
  float strip[kTileChannels * kStripRows];
  LoadDigitTable(s, factors, table);
  LoadPageMeans(factors.mean, dim, mean);
  LoadStrip(acc + dim, stride, heads, kTileChannels, strip);
  RestoreLatents(s.factors(), sums, stride, heads, strip);
  StoreStrip(strip, heads, kTileChannels, kTileChannels, digits);
  AddProduct(digits, heads, kTileChannels, table, dim, out);
  for (int h = 0; h < heads; ++h) {
    const float total = sums[static_cast<size_t>(h) * stride];
    for (int c = 0; c < dim; ++c) out[h * dim + c] += total * mean[c];
  }
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const int dim = s.shape.dim;
  const auto stride = static_cast<size_t>(s.acc_dim);
  Strip strip;
  LoadStrip(acc, stride, heads, dim, strip.values);
  for (int g = 0; g < s.num_groups(); ++g) {
    RestoreLatents(s.codes(g), acc + dim + kTileChannels + g, stride, heads,
                   strip.values + s.group_first(g) * kStripRows);
  }
  StoreStrip(strip.values, heads, dim, static_cast<size_t>(dim), out);
  if (factors.present()) FinishLowRank(s, factors, acc, heads, out);
  Rotate(s, true, heads, out);
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

}  // namespace kvant::lowrank
