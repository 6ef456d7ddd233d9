#include "codec/raw/raw.h"

#include <cmath>

namespace kvant::raw {
namespace {

const State& AsState(const CodecState& state) { return static_cast<const State&>(state); }

// ---- one value

uint16_t ToBits(Type type, float value) { return type == Type::kF16 ? ToF16(value).bits : ToBF16(value).bits; }
float FromBits(Type type, uint16_t bits) { return type == Type::kF16 ? ToFloat(F16{bits}) : ToFloat(BF16{bits}); }

// The largest magnitude that is stored. bf16 reaches further, but the scores of such rows would not be
// finite.
constexpr float kBF16Limit = 0x1p100f;
float Limit(Type type) { return type == Type::kF16 ? kF16Max : kBF16Limit; }

float Value(const State& s, const std::byte* block, int token, int channel) {
  return FromBits(s.type, reinterpret_cast<const uint16_t*>(block)[ValueIndex(s.shape, token, channel)]);
}

// ---- verbs

Status Encode(const CodecState& state, const BlockContext&, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  auto* out = reinterpret_cast<uint16_t*>(block);
  for (int t = 0; t < s.shape.tokens; ++t) {
    for (int c = 0; c < s.shape.dim; ++c) {
      const float value = rows[t * s.shape.dim + c];
      if (std::abs(value) > Limit(s.type)) {
        return Status::InvalidArgument(
            StrFormat("raw: value %g is beyond %g", static_cast<double>(value), static_cast<double>(Limit(s.type))));
      }
      out[ValueIndex(s.shape, t, c)] = ToBits(s.type, value);
    }
  }
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  for (int t = 0; t < s.shape.tokens; ++t) {
    for (int c = 0; c < s.shape.dim; ++c) {
      const float value = Value(s, block, t, c);
      if (!(std::abs(value) <= Limit(s.type))) {
        return Status::Corruption(StrFormat("raw: token %d holds a value that is not a number or too large", t));
      }
      rows[t * s.shape.dim + c] = value;
    }
  }
  return Status::Ok();
}

void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared) {
  auto* out = reinterpret_cast<float*>(prepared);
  for (int i = 0; i < heads * state.shape.dim; ++i) out[i] = queries[i];
}

void Score(const CodecState& state, const BlockContext&, const std::byte* block, const std::byte* prepared, int heads,
           float* scores) {
  const State& s = AsState(state);
  const auto* q = reinterpret_cast<const float*>(prepared);
  for (int h = 0; h < heads; ++h) {
    for (int t = 0; t < s.shape.tokens; ++t) {
      float sum = 0.0f;
      for (int c = 0; c < s.shape.dim; ++c) sum += q[h * s.shape.dim + c] * Value(s, block, t, c);
      scores[h * kTokensPerPage + t] = sum;
    }
  }
}

void Accumulate(const CodecState& state, const BlockContext&, const std::byte* block, const float* weights, int heads,
                float* acc) {
  const State& s = AsState(state);
  for (int h = 0; h < heads; ++h) {
    for (int t = 0; t < s.shape.tokens; ++t) {
      const float w = weights[h * kTokensPerPage + t];
      for (int c = 0; c < s.shape.dim; ++c) acc[h * s.shape.dim + c] += w * Value(s, block, t, c);
    }
  }
}

void Finish(const CodecState& state, const BlockContext&, const float* acc, int heads, float* out) {
  for (int i = 0; i < heads * state.shape.dim; ++i) out[i] = acc[i];
}

// ---- rows in place

void StoreRow(const BlockShape& shape, std::byte* block, int token, const F16* row) {
  auto* out = reinterpret_cast<F16*>(block) + ValueIndex(shape, token, 0);
  const int stride = shape.side == Side::kKey ? shape.tokens : 1;
  for (int c = 0; c < shape.dim; ++c) out[c * stride] = row[c];
}

void LoadRow(const BlockShape& shape, const std::byte* block, int token, F16* row) {
  const auto* in = reinterpret_cast<const F16*>(block) + ValueIndex(shape, token, 0);
  const int stride = shape.side == Side::kKey ? shape.tokens : 1;
  for (int c = 0; c < shape.dim; ++c) row[c] = in[c * stride];
}

// ---- the row of the registry

Result<DeviceFormat> FormatOf(const CodecState& state) {
  if (AsState(state).type != Type::kF16) return Status::NotSupported("raw: type=bf16 on a device; accepted: fp16");
  if (state.shape.tokens != kTokensPerPage) {
    return Status::NotSupported(
        StrFormat("raw: blocks of %d tokens on a device; accepted: %d", state.shape.tokens, kTokensPerPage));
  }
  return DeviceFormat{};
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  static constexpr std::string_view kTypes[] = {"fp16", "bf16"};
  if (shape.tokens < kTokenMultiple || shape.tokens > kTokensPerPage || shape.tokens % kTokenMultiple != 0) {
    return Status::NotSupported(StrFormat("raw: blocks of %d tokens; accepted: multiples of %d up to %d", shape.tokens,
                                          kTokenMultiple, kTokensPerPage));
  }
  const OptionReader reader(kInfo, options);
  const Result<int> type = reader.GetChoice("type", kTypes);
  if (!type.ok()) return type.status();
  auto state = std::make_unique<State>(shape);
  state->type = static_cast<Type>(*type);
  state->layout.Add("rows", StreamKind::kExact, sizeof(uint16_t) * static_cast<size_t>(shape.tokens * shape.dim));
  state->prepared_head_bytes = sizeof(float) * static_cast<size_t>(shape.dim);
  state->acc_dim = shape.dim;
  return std::unique_ptr<CodecState>(std::move(state));
}

constexpr OptionInfo kOptions[] = {{"type", "fp16", "fp16, bf16", "how a value is stored"}};

// Rounding to nearest: 2^-12 / sqrt(3) relative at worst for fp16, 8 times that for bf16; half of it on
// average.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 16.0, 1e-4, 3e-4},
    {"", Side::kValue, 16.0, 1e-4, 3e-4},
    {"type=bf16", Side::kKey, 16.0, 8e-4, 2.4e-3},
    {"type=bf16", Side::kValue, 16.0, 8e-4, 2.4e-3},
};

constexpr CodecPair kTypical[] = {
    {"type=bf16", "type=bf16"},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "raw",
    .summary = "fp16 or bf16 as it comes; open pages and sinks are stored this way",
    .paper = "-",
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .make = Make,
    .store_row = StoreRow,
    .load_row = LoadRow,
    .device_format = FormatOf,
    .reference = {Encode, Decode, PrepareQuery, Score, Accumulate, Finish},
    .simd = [] { return &SimdVerbs(); },
};

}  // namespace kvant::raw
