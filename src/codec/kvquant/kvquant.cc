#include "codec/kvquant/kvquant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "codec/parts/f16_words.h"

namespace kvant::kvquant {

// ---- what both implementations and the fit share

TokenRange RangeOf(float min, float max) {
  const F16 mid = ToF16((max + min) * 0.5f + 0.0f);
  return {mid, ToF16((max - min) * 0.5f)};
}

void PickValueOutliers(const State& s, const float* rows, OutlierPicker* picker) {
  const int dim = s.shape.dim;
  for (int t = 0; t < kTokensPerPage; ++t) {
    const float* row = rows + t * dim;
    float sum = 0.0f, squares = 0.0f;
    for (int c = 0; c < dim; ++c) sum += row[c];
    const float mean = sum / static_cast<float>(dim);
    for (int c = 0; c < dim; ++c) squares += (row[c] - mean) * (row[c] - mean);
    const float inverse = squares > 0.0f ? 1.0f / std::sqrt(squares / static_cast<float>(dim)) : 0.0f;
    for (int c = 0; c < dim; ++c) {
      picker->Offer({std::abs(row[c] - mean) * inverse, static_cast<uint16_t>(PlaceOf(Side::kValue, c, t)), row[c]});
    }
  }
  picker->Sort();
}

void FitRanges(const State& s, const float* rows, const OutlierPicker& outliers, TokenRange* ranges) {
  const int dim = s.shape.dim;
  uint64_t apart[kMaxDim] = {};  // bit t: an outlier
  for (const Outlier& o : outliers.chosen()) {
    const auto [channel, token] = PlaceAt(Side::kValue, o.place);
    apart[channel] |= uint64_t{1} << token;
  }
  for (int t = 0; t < kTokensPerPage; ++t) {
    float min = std::numeric_limits<float>::max(), max = std::numeric_limits<float>::lowest();
    for (int c = 0; c < dim; ++c) {
      if ((apart[c] >> t & 1) != 0) continue;
      min = std::min(min, rows[t * dim + c]);
      max = std::max(max, rows[t * dim + c]);
    }
    ranges[t] = min <= max ? RangeOf(min, max) : TokenRange{};
  }
}

Status StoreRanges(const State& s, const TokenRange* ranges, std::byte* block) {
  auto* mids = reinterpret_cast<F16*>(block + s.mids_ofs);
  auto* halves = reinterpret_cast<F16*>(block + s.halves_ofs);
  for (int t = 0; t < kTokensPerPage; ++t) {
    mids[t] = ranges[t].mid;
    halves[t] = ranges[t].half;
    if (!std::isfinite(ToFloat(mids[t])) || !std::isfinite(ToFloat(halves[t]))) {
      return Status::InvalidArgument(StrFormat("kvquant: the range of token %d does not fit fp16", t));
    }
  }
  return Status::Ok();
}

Status StoreOutliers(const State& s, const OutlierPicker& outliers, std::byte* block) {
  auto* deltas = reinterpret_cast<F16*>(block + s.deltas_ofs);
  auto* places = reinterpret_cast<uint16_t*>(block + s.places_ofs);
  for (const Outlier& o : outliers.chosen()) {
    *places++ = o.place;
    *deltas = ToF16(o.value);
    if (!std::isfinite(ToFloat(*deltas++))) {
      return Status::InvalidArgument(
          StrFormat("kvquant: an outlier is %g from its code, which does not fit fp16", static_cast<double>(o.value)));
    }
  }
  return Status::Ok();
}

Status CheckContext(const State& s, const BlockContext& context) {
  if (context.basis == nullptr) return Status::InvalidArgument("kvquant: a block cannot do without a basis");
  if (!s.keys() || (context.positions != nullptr && context.rope != nullptr)) return Status::Ok();
  return Status::InvalidArgument("kvquant: keys cannot do without positions and how they are turned (RoPE)");
}

Status CheckBlock(const State& s, const std::byte* block) {
  bool valid = true;
  for (int t = 0; t < kTokensPerPage && !s.keys(); ++t) {
    valid &= IsFiniteWord(s.mids(block)[t].bits) && IsScaleWord(s.halves(block)[t].bits);
  }
  if (!valid) return Status::Corruption("kvquant: the range of a token is not finite or negative");
  for (int i = 0; i < s.slots; ++i) valid &= IsFiniteWord(s.deltas(block)[i].bits);
  if (!valid) return Status::Corruption("kvquant: an outlier is not finite");
  for (int i = 0; i < s.slots; ++i) {
    const int place = s.places(block)[i];
    valid &= place < s.shape.dim * kTokensPerPage && (i == 0 || place > s.places(block)[i - 1]);
  }
  if (!valid) return Status::Corruption("kvquant: the places of outliers do not rise or lie outside the block");
  return Status::Ok();
}

namespace {

// ---- reference: one token at a time

const std::byte* TileOf(const State& s, const std::byte* block, int channel) {
  return block + s.codes_ofs + static_cast<size_t>(channel / kTileChannels) * TileBytes(s.bits);
}

// What a coded channel of a token is normalised by.
TokenRange RangeAt(const State& s, const BlockContext& context, const std::byte* block, int channel, int token) {
  if (!s.keys()) return {s.mids(block)[token], s.halves(block)[token]};
  const BasisView basis(s, context.basis);
  const int c = context.rope->pair_order()[channel];
  return {basis.mids[c], basis.halves[c]};
}

float Reconstructed(const BasisView& basis, const TokenRange& range, int code) {
  return ToFloat(range.mid) + ToFloat(range.half) * basis.value(code);
}

int Encoded(const State& s, const BasisView& basis, const TokenRange& range, float value) {
  return LevelCode(basis.thresholds, s.num_thresholds(), (value - ToFloat(range.mid)) * range.inverse());
}

void SetCode(const State& s, int channel, int token, int code, std::byte* block) {
  auto* tile = const_cast<std::byte*>(TileOf(s, block, channel));
  SetTileCode(s.order(), s.bits, token, channel % kTileChannels, code, tile);
}

// Row of one token as the codec sees it: keys before RoPE, in pair order.
void LoadRow(const State& s, const BlockContext& context, const float* rows, int token, float* row) {
  const int dim = s.shape.dim;
  if (!s.keys()) {
    std::copy_n(rows + token * dim, dim, row);
    return;
  }
  float model_order[kMaxDim];
  std::copy_n(rows + token * dim, dim, model_order);
  TurnRowsBack(*context.rope, context.positions + token, 1, model_order);
  for (int i = 0; i < dim; ++i) row[i] = model_order[context.rope->pair_order()[i]];
}

// The inverse, from a block.
void DecodeRow(const State& s, const BlockContext& context, const std::byte* block, int token, float* row) {
  const BasisView basis(s, context.basis);
  const int dim = s.shape.dim;
  float coded[kMaxDim];
  for (int i = 0; i < dim; ++i) {
    const int code = TileCode(s.order(), s.bits, TileOf(s, block, i), token, i % kTileChannels);
    coded[i] = Reconstructed(basis, RangeAt(s, context, block, i, token), code);
  }
  for (int i = 0; i < s.slots; ++i) {
    const Place place = PlaceAt(s.shape.side, s.places(block)[i]);
    if (place.token == token) coded[place.channel] += ToFloat(s.deltas(block)[i]);
  }
  if (!s.keys()) {
    std::copy_n(coded, dim, row);
    return;
  }
  for (int i = 0; i < dim; ++i) row[context.rope->pair_order()[i]] = coded[i];
  TurnRows(*context.rope, context.positions + token, 1, row);
}

// ---- verbs

Status EncodeKeys(const State& s, const BlockContext& context, const float* rows, std::byte* block) {
  const BasisView basis(s, context.basis);
  OutlierPicker outliers(s.slots);
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxDim];
    LoadRow(s, context, rows, t, row);
    for (int i = 0; i < s.shape.dim; ++i) {
      const TokenRange range = RangeAt(s, context, block, i, t);
      const int code = Encoded(s, basis, range, row[i]);
      SetCode(s, i, t, code, block);
      const float normalised = (row[i] - ToFloat(range.mid)) * range.inverse();
      outliers.Offer({std::abs(normalised), static_cast<uint16_t>(PlaceOf(Side::kKey, i, t)),
                      row[i] - Reconstructed(basis, range, code)});
    }
  }
  outliers.Sort();
  return StoreOutliers(s, outliers, block);
}

Status EncodeValues(const State& s, const BlockContext& context, const float* rows, std::byte* block) {
  const BasisView basis(s, context.basis);
  OutlierPicker outliers(s.slots);
  TokenRange ranges[kTokensPerPage];
  PickValueOutliers(s, rows, &outliers);
  FitRanges(s, rows, outliers, ranges);
  KVANT_TRY(StoreRanges(s, ranges, block));
  for (int t = 0; t < kTokensPerPage; ++t) {
    for (int c = 0; c < s.shape.dim; ++c) {
      SetCode(s, c, t, Encoded(s, basis, ranges[t], rows[t * s.shape.dim + c]), block);
    }
  }
  for (Outlier& o : outliers.chosen()) {
    const TokenRange& range = ranges[PlaceAt(Side::kValue, o.place).token];
    o.value -= Reconstructed(basis, range, Encoded(s, basis, range, o.value));
  }
  return StoreOutliers(s, outliers, block);
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  std::memset(block, 0, s.layout.block_bytes());
  return (s.keys() ? EncodeKeys : EncodeValues)(s, context, rows, block);
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  KVANT_TRY(CheckContext(s, context));
  KVANT_TRY(CheckBlock(s, block));
  for (int t = 0; t < kTokensPerPage; ++t) DecodeRow(s, context, block, t, rows + t * s.shape.dim);
  return Status::Ok();
}

void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared) {
  std::copy_n(queries, heads * state.shape.dim, reinterpret_cast<float*>(prepared));
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const auto* q = reinterpret_cast<const float*>(prepared);
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxDim];
    DecodeRow(s, context, block, t, row);
    for (int h = 0; h < heads; ++h) {
      float sum = 0.0f;
      for (int c = 0; c < s.shape.dim; ++c) sum += q[h * s.shape.dim + c] * row[c];
      scores[h * kTokensPerPage + t] = sum;
    }
  }
}

// Accumulator: [dim] sums, then 16 floats that the reference leaves alone: what all channels have in common.
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxDim];
    DecodeRow(s, context, block, t, row);
    for (int h = 0; h < heads; ++h) {
      for (int c = 0; c < s.shape.dim; ++c) acc[h * s.acc_dim + c] += weights[h * kTokensPerPage + t] * row[c];
    }
  }
}

void Finish(const CodecState& state, const BlockContext&, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  for (int h = 0; h < heads; ++h) {
    for (int c = 0; c < s.shape.dim; ++c)
      out[h * s.shape.dim + c] = acc[h * s.acc_dim + c] + acc[h * s.acc_dim + s.shape.dim];
  }
}

// ---- options

constexpr OptionInfo kOptions[] = {
    {"bits", "4", "2, 3, 4", "bits of a code"},
    {"outliers", "1", "0..5 in steps of 0.25", "percent of the values kept apart"},
    {"qnorm", "auto", "auto, on, off", "levels keep mean and variance of the values (auto: on at 2 bits)"},
    {"fit", "0", "0, 256..1048576", "0: constants come from a calibration; else tokens of the prompt to fit them to"},
};

constexpr CodecPair kTypical[] = {
    {"bits=4,fit=1024", "bits=4,fit=1024"},
    {"bits=3,fit=1024", "bits=3,fit=1024"},
    {"bits=2,fit=1024", "bits=2,fit=1024"},
};

struct Options {
  int bits = 0;
  double outliers = 0.0;
  bool keep_moments = false;
  int fit = 0;
};

constexpr int kMinFit = 256;

Result<Options> Read(const OptionReader& reader) {
  static constexpr int kBits[] = {2, 3, 4};
  static constexpr std::string_view kSwitch[] = {"auto", "on", "off"};
  const Result<int> bits = reader.GetInt("bits", kBits);
  if (!bits.ok()) return bits.status();
  const Result<double> outliers = reader.GetNumber("outliers", 0.0, 5.0, 0.25);
  if (!outliers.ok()) return outliers.status();
  const Result<int> keep_moments = reader.GetChoice("qnorm", kSwitch);
  if (!keep_moments.ok()) return keep_moments.status();
  const Result<int> fit = reader.GetIntRange("fit", 0, 1 << 20);
  if (!fit.ok()) return fit.status();
  if (*fit != 0 && *fit < kMinFit) return reader.Refuse("fit", "");
  return Options{*bits, *outliers, *keep_moments == 0 ? *bits == 2 : *keep_moments == 1, *fit};
}

// Slots come in sixteens, so that all of them are whole vectors.
int SlotsFor(double share, int dim) { return 16 * static_cast<int>(std::lround(share * kTokensPerPage * dim / 16)); }

void SetLayout(State* s) {
  const auto slots = static_cast<size_t>(s->slots);
  const auto tiles = static_cast<size_t>(s->num_tiles());
  s->codes_ofs = s->layout.Add("codes", StreamKind::kCodes, tiles * TileBytes(s->bits));
  if (!s->keys()) {
    s->mids_ofs = s->layout.Add("mids", StreamKind::kMeans, kTokensPerPage * sizeof(F16));
    s->halves_ofs = s->layout.Add("halves", StreamKind::kScales, kTokensPerPage * sizeof(F16));
  }
  if (slots == 0) return;
  s->deltas_ofs = s->layout.Add("deltas", StreamKind::kOutliers, slots * sizeof(F16));
  s->places_ofs = s->layout.Add("places", StreamKind::kOutliers, slots * sizeof(uint16_t));
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& given) {
  const Result<Options> options = Read(OptionReader(kInfo, given));
  if (!options.ok()) return options.status();
  auto s = std::make_unique<State>(shape);
  s->bits = options->bits;
  s->outlier_share = options->outliers / 100.0;
  s->slots = SlotsFor(s->outlier_share, shape.dim);
  s->keep_moments = options->keep_moments;
  std::fill_n(s->tile_bits, s->num_tiles(), static_cast<uint8_t>(s->bits));
  SetLayout(s.get());
  s->basis_bytes = BasisBytes(*s);
  s->needs_basis = true;
  s->needs_calibration = options->fit == 0;
  s->basis_min_tokens = options->fit;
  s->basis_per_layer = !s->keys();
  s->keys_before_rope = s->keys();
  s->prepared_head_bytes = AlignUp(sizeof(float) * static_cast<size_t>(3 * shape.dim + 32));
  s->acc_dim = shape.dim + 16;
  return std::unique_ptr<CodecState>(std::move(s));
}

// Measured on N(0,1) rows with a basis fitted to 1,024 such rows; the interval is twice the spread over 20 blocks.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 4.3125, 0.080, 0.088},        {"", Side::kValue, 4.5625, 0.078, 0.083},
    {"bits=3", Side::kKey, 3.3125, 0.158, 0.171},  {"bits=3", Side::kValue, 3.5625, 0.154, 0.165},
    {"bits=2", Side::kKey, 2.3125, 0.309, 0.325},  {"bits=2", Side::kValue, 2.5625, 0.303, 0.322},
    {"outliers=0", Side::kKey, 4.0, 0.093, 0.114}, {"outliers=0", Side::kValue, 4.25, 0.086, 0.096},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "kvquant",
    .summary = "keys before RoPE per channel, values per token, fitted levels, outliers apart; calibrated",
    .paper = "Hooper et al., KVQuant, arXiv:2401.18079",
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .max_code_mismatch = 0.01,
    .make = Make,
    .fit_basis = FitBasis,
    .check_basis = CheckBasis,
    .reference = {.encode = Encode,
                  .decode = Decode,
                  .prepare_query = PrepareQuery,
                  .score = Score,
                  .accumulate = Accumulate,
                  .finish = Finish},
    .simd = SimdVerbs,
};

}  // namespace kvant::kvquant
