#include "codec/lowrank/lowrank.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "codec/parts/hadamard.h"
#include "codec/parts/take_option.h"

namespace kvant::lowrank {
namespace {

// ---- one row at a time

// Row -> what is decomposed: rotated, less the mean.
void ToLatents(const State& s, const Factors& factors, const float* row, float* latents) {
  std::copy_n(row, s.shape.dim, latents);
  if (s.rotated) HadamardRow(s.shape.dim, latents);
  for (int c = 0; factors.present() && c < s.shape.dim; ++c) latents[c] -= ToFloat(factors.mean[c]);
}

void FromLatents(const State& s, float* row) {
  if (s.rotated) InverseHadamardRow(s.shape.dim, row);
}

float FactorValue(const State& s, uint8_t code) {
  return static_cast<float>(code) - static_cast<float>((1 << s.factor_bits) - 1) * 0.5f;
}

// row -= or += what the factors of a token stand for.
void AddFactors(const State& s, const Factors& factors, const uint8_t* codes, float sign, float* row) {
  for (int j = 0; factors.present() && j < s.rank; ++j) {
    float direction[kMaxStripDim];
    LoadDirection(s, factors, j, direction);
    const float value = sign * FactorValue(s, codes[j]);
    for (int c = 0; c < s.shape.dim; ++c) row[c] += value * direction[c];
  }
}

void FitFactors(const State& s, const Factors& factors, const float* row, uint8_t* codes) {
  for (int j = 0; factors.present() && j < s.rank; ++j) {
    float direction[kMaxStripDim];
    LoadDirection(s, factors, j, direction);
    const float dot = std::inner_product(row, row + s.shape.dim, direction, 0.0f);
    const float norm = std::inner_product(direction, direction + s.shape.dim, direction, 0.0f);
    codes[j] = FactorCode(s, norm > 0.0f ? dot / norm : 0.0f);
  }
}

// Codes of a token's residual under the scales of a choice, and the values they stand for.
void CodeResidual(const State& s, const PageChoice& choice, int token, const float* residual, uint8_t* codes,
                  float* values) {
  for (int c = 0; c < s.shape.dim; ++c) {
    const float scale = choice.scale(c / kGroupChannels, token);
    const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    codes[c] = static_cast<uint8_t>(TableCode(*s.table, residual[c] * inverse));
    values[c] = scale * s.table->value(codes[c]);
  }
}

// ---- encode

double Refine(const State& s, const Factors& factors, const float* rows, const PageChoice* maybe_from,
              uint8_t* new_factors, float* largest) {
  const int dim = s.shape.dim;
  double error = 0.0;
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxStripDim];
    float rest[kMaxStripDim];
    ToLatents(s, factors, rows + t * dim, row);
    std::copy_n(row, dim, rest);
    if (maybe_from) {
      uint8_t codes[kMaxStripDim];
      float values[kMaxStripDim];
      AddFactors(s, factors, maybe_from->factors + t * s.rank, -1.0f, rest);
      CodeResidual(s, *maybe_from, t, rest, codes, values);
      for (int c = 0; c < dim; ++c) {
        error += static_cast<double>(rest[c] - values[c]) * (rest[c] - values[c]);
        rest[c] = row[c] - values[c];
      }
    }
    FitFactors(s, factors, rest, new_factors + t * s.rank);
    AddFactors(s, factors, new_factors + t * s.rank, -1.0f, row);
    for (int g = 0; g < s.num_groups(); ++g) {
      float& most = largest[g * kTokensPerPage + t];
      most = 0.0f;
      for (int c = 0; c < s.group_channels(g); ++c) most = std::max(most, std::abs(row[s.group_first(g) + c]));
    }
  }
  return error;
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  std::memset(block, 0, s.layout.block_bytes());
  const Result<PageChoice> choice = ChoosePage(s, factors, rows, Refine);
  if (!choice.ok()) return choice.status();
  StoreChoice(s, *choice, block);
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxStripDim];
    float values[kMaxStripDim];
    uint8_t codes[kMaxStripDim];
    ToLatents(s, factors, rows + t * s.shape.dim, row);
    AddFactors(s, factors, choice->factors + t * s.rank, -1.0f, row);
    CodeResidual(s, *choice, t, row, codes, values);
    for (int g = 0; g < s.num_groups(); ++g) {
      SetRowCodes(s.codes(g), t, codes + s.group_first(g), block + s.group_ofs(g));
    }
  }
  return Status::Ok();
}

// ---- decode

// Visits (token, channel, value) of Q.
template <typename Visit>
void ForEachCode(const State& s, const std::byte* block, Visit visit) {
  for (int g = 0; g < s.num_groups(); ++g) {
    float scales[kTokensPerPage];
    LoadScales(s, block, g, scales);
    ForEachLatent(s.codes(g), block + s.group_ofs(g),
                  [&](int t, int c, float value) { visit(t, s.group_first(g) + c, scales[t] * value); });
  }
}

// Visits (token, digit, value) of L1.
template <typename Visit>
void ForEachDigit(const State& s, const Factors& factors, const std::byte* block, Visit visit) {
  if (factors.present()) ForEachLatent(s.factors(), block + s.factors_ofs, visit);
}

// Direction of digit i, [dim].
void LoadDigit(const State& s, const Factors& factors, int i, float* out) {
  LoadDirection(s, factors, i / s.digits, out);
  const auto weight = static_cast<float>(1 << (i % s.digits * s.digit_bits));
  for (int c = 0; c < s.shape.dim; ++c) out[c] *= weight;
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const int dim = s.shape.dim;
  KVANT_TRY(CheckBlock(s, block));
  for (int i = 0; i < kTokensPerPage * dim; ++i) rows[i] = factors.present() ? ToFloat(factors.mean[i % dim]) : 0.0f;
  ForEachDigit(s, factors, block, [&](int t, int i, float value) {
    float direction[kMaxStripDim];
    LoadDigit(s, factors, i, direction);
    for (int c = 0; c < dim; ++c) rows[t * dim + c] += value * direction[c];
  });
  ForEachCode(s, block, [&](int t, int c, float value) { rows[t * dim + c] += value; });
  for (int t = 0; t < kTokensPerPage; ++t) FromLatents(s, rows + t * dim);
  return Status::Ok();
}

// ---- prepare_query, score

// Prepared query of the reference: [heads] x (rotated query [dim], its products with the digits [16], with the mean).
int PreparedFloats(const State& s) { return s.shape.dim + kTileChannels + 1; }

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const int dim = s.shape.dim;
  auto* q = reinterpret_cast<float*>(prepared);
  for (int h = 0; h < heads; ++h, q += PreparedFloats(s)) {
    std::copy_n(queries + h * dim, dim, q);
    if (s.rotated) HadamardRow(dim, q);
    std::fill_n(q + dim, kTileChannels + 1, 0.0f);
    if (!factors.present()) continue;
    for (int i = 0; i < kTileChannels; ++i) {
      float direction[kMaxStripDim];
      LoadDigit(s, factors, i, direction);
      q[dim + i] = std::inner_product(q, q + dim, direction, 0.0f);
    }
    for (int c = 0; c < dim; ++c) q[dim + kTileChannels] += q[c] * ToFloat(factors.mean[c]);
  }
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const auto* q = reinterpret_cast<const float*>(prepared);
  for (int h = 0; h < heads; ++h, q += PreparedFloats(s), scores += kTokensPerPage) {
    std::fill_n(scores, kTokensPerPage, q[s.shape.dim + kTileChannels]);
    ForEachCode(s, block, [&](int t, int c, float value) { scores[t] += q[c] * value; });
    ForEachDigit(s, factors, block, [&](int t, int i, float value) { scores[t] += q[s.shape.dim + i] * value; });
  }
}

// ---- accumulate, finish

// Accumulator: [dim] of Q, [16] of the digits, then 16 floats of which [kWeightSum] is the sum of the weights.
constexpr int kWeightSum = kMaxGroups;

void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const int dim = s.shape.dim;
  for (int h = 0; h < heads; ++h, acc += s.acc_dim, weights += kTokensPerPage) {
    ForEachCode(s, block, [&](int t, int c, float value) { acc[c] += weights[t] * value; });
    ForEachDigit(s, factors, block, [&](int t, int i, float value) { acc[dim + i] += weights[t] * value; });
    acc[dim + kTileChannels + kWeightSum] += std::accumulate(weights, weights + kTokensPerPage, 0.0f);
  }
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, context.basis);
  const int dim = s.shape.dim;
  for (int h = 0; h < heads; ++h, acc += s.acc_dim, out += dim) {
    std::copy_n(acc, dim, out);
    for (int i = 0; factors.present() && i < kTileChannels; ++i) {
      float direction[kMaxStripDim];
      LoadDigit(s, factors, i, direction);
      for (int c = 0; c < dim; ++c) out[c] += acc[dim + i] * direction[c];
    }
    const float total = acc[dim + kTileChannels + kWeightSum];
    for (int c = 0; factors.present() && c < dim; ++c) out[c] += total * ToFloat(factors.mean[c]);
    FromLatents(s, out);
  }
}

// ---- the row of the registry

constexpr OptionInfo kOptions[] = {
    {"bits", "4", "2, 3, 4", "bits of a code of Q"},
    {"code", "nf", "nf, uniform", "values of the codes: NormalFloat, or at equal distances"},
    {"rank", "8", "0, 4, 8, 16", "directions of the low-rank part; 0: none"},
    {"factor_bits", "4", "4, 8", "bits of a factor: one number per token and direction"},
    {"rounds", "0", "0..16", "times that factors and codes are fitted to each other again"},
    {"rotate", "hadamard", "hadamard, none",
     "randomised Hadamard transform before the decomposition; none: as published"},
    {"fit", "1024", "64..1048576", "tokens before the first basis is fitted"},
    {"refit", "4096", "0..1048576", "tokens of a segment; 0: one basis for all"},
};

// Measured on N(0,1) rows without a basis, +-4 %.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 4.4375, 0.0881, 0.09544},
    {"rank=0", Side::kKey, 4.1875, 0.0881, 0.09544},
    {"bits=3,rotate=none", Side::kKey, 3.4375, 0.196, 0.2123},
    {"bits=2,rank=16,rounds=4", Side::kKey, 2.6875, 0.5395, 0.5845},
    {"code=uniform,rank=4,rotate=none", Side::kKey, 4.3125, 0.09541, 0.1034},
    {"bits=3,code=uniform,rank=4,factor_bits=8", Side::kKey, 3.4375, 0.2048, 0.2219},
    {"", Side::kValue, 4.4375, 0.0881, 0.09544},
    {"rank=0,rotate=none", Side::kValue, 4.1875, 0.08899, 0.09641},
    {"bits=3,rank=16,factor_bits=8", Side::kValue, 4.1875, 0.1944, 0.2106},
    {"bits=2,rounds=2", Side::kValue, 2.4375, 0.5395, 0.5845},
    {"bits=2,code=uniform,rank=4", Side::kValue, 2.3125, 0.4786, 0.5185},
};

constexpr CodecPair kTypical[] = {
    {"", ""},
    {"bits=3", "bits=3"},
    {"bits=2", "bits=2"},
};

// ---- options

struct Options {
  int bits = 0;
  int code = 0;
  int rank = 0;
  int factor_bits = 0;
  int rounds = 0;
  bool rotate = false;
  int fit = 0;
  int refit = 0;
};

Status Read(const OptionReader& reader, Options* o) {
  static constexpr int kBits[] = {2, 3, 4};
  static constexpr std::string_view kCodes[] = {"nf", "uniform"};
  static constexpr int kRanks[] = {0, 4, 8, 16};
  static constexpr int kFactorBits[] = {4, 8};
  static constexpr std::string_view kRotations[] = {"hadamard", "none"};
  KVANT_TRY(TakeOption(reader.GetInt("bits", kBits), &o->bits));
  KVANT_TRY(TakeOption(reader.GetChoice("code", kCodes), &o->code));
  KVANT_TRY(TakeOption(reader.GetInt("rank", kRanks), &o->rank));
  KVANT_TRY(TakeOption(reader.GetInt("factor_bits", kFactorBits), &o->factor_bits));
  KVANT_TRY(TakeOption(reader.GetIntRange("rounds", 0, 16), &o->rounds));
  int rotation = 0;
  KVANT_TRY(TakeOption(reader.GetChoice("rotate", kRotations), &rotation));
  o->rotate = rotation == 0;
  KVANT_TRY(TakeOption(reader.GetIntRange("fit", kTokensPerPage, 1 << 20), &o->fit));
  return TakeOption(reader.GetIntRange("refit", 0, 1 << 20), &o->refit);
}

CodebookSet DigitBooks(int bits) {
  CodebookSet set = {};
  set.by_bits[bits] = {.bits = bits, .step = 1.0f, .center = static_cast<float>((1 << bits) - 1) * 0.5f};
  return set;
}

void SetCodes(const Options& o, State* s) {
  s->table = &(o.code == 0 ? NormalFloat : UniformTable)(o.bits);
  s->books = AsCodebookSet(*s->table);
  std::fill(std::begin(s->tile_bits), std::end(s->tile_bits), static_cast<uint8_t>(o.bits));
  s->rotated = o.rotate;
  s->rounds = o.rounds;
  s->rank = o.rank;
  s->factor_bits = o.factor_bits;
  if (o.rank == 0) return;
  s->digits = kTileChannels / o.rank;
  s->digit_bits = static_cast<uint8_t>(o.factor_bits / s->digits);
  s->digit_books = DigitBooks(s->digit_bits);
}

void SetLayout(State* s) {
  const auto tiles = static_cast<size_t>(s->shape.dim / kTileChannels);
  const auto groups = static_cast<size_t>(s->num_groups());
  s->codes_ofs = s->layout.Add("codes", StreamKind::kCodes, TileBytes(s->tile_bits[0]) * tiles);
  if (s->rank > 0) s->factors_ofs = s->layout.Add("factors", StreamKind::kCodes, TileBytes(s->digit_bits));
  s->scale_codes_ofs = s->layout.Add("scale_codes", StreamKind::kScales, groups * kTokensPerPage);
  s->scale_params_ofs = s->layout.Add("scale_params", StreamKind::kScales, 2 * sizeof(F16));
  s->prepared_head_bytes = AlignUp(static_cast<size_t>(PreparedFloats(*s)) * sizeof(float));
  s->acc_dim = s->shape.dim + 2 * kTileChannels;
}

Result<std::unique_ptr<CodecState>> MakeState(const BlockShape& shape, const Options& o) {
  auto s = std::make_unique<State>(shape);
  SetCodes(o, s.get());
  SetLayout(s.get());
  s->basis_bytes = BasisBytes(*s);
  if (s->basis_bytes > 0) {
    s->basis_min_tokens = o.fit;
    s->basis_refit_tokens = o.refit;
  }
  return std::unique_ptr<CodecState>(std::move(s));
}

}  // namespace

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  const OptionReader reader(kInfo, options);
  Options o;
  KVANT_TRY(Read(reader, &o));
  if (o.rank >= shape.dim) return reader.Refuse("rank", StrFormat("for a head of %d channels", shape.dim));
  if (shape.tokens != kTokensPerPage)
    return Status::NotSupported(StrFormat("lowrank: blocks of %d tokens", shape.tokens));
  return MakeState(shape, o);
}

const CodecInfo kInfo = {
    .name = "lowrank",
    .summary = "NormalFloat codes with quantised scales plus a few factors per token in a fitted basis",
    .paper = "Guo et al., LQ-LoRA, arXiv:2311.12023, applied to the cache",
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .max_code_mismatch = 1e-3,
    .make = Make,
    .fit_basis = FitBasis,
    .check_basis = CheckBasis,
    .reference = {Encode, Decode, PrepareQuery, Score, Accumulate, Finish},
    .simd = SimdVerbs,
};

}  // namespace kvant::lowrank
