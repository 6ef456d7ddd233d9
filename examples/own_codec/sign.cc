#include "sign.h"

#include <cmath>
#include <cstring>

#include "base/float16.h"

namespace kvant::sign {
namespace {

// A block: the mean magnitude of each token, fp16 [64], then the signs, one bit per value, [64][dim / 8] bytes.
// value = sign * magnitude
struct State : CodecState {
  using CodecState::CodecState;
  size_t magnitudes_ofs = 0;
  size_t signs_ofs = 0;

  float Value(const std::byte* block, int token, int channel) const {
    const float magnitude = ToFloat(reinterpret_cast<const F16*>(block + magnitudes_ofs)[token]);
    const int bit = token * shape.dim + channel;
    const bool negative = (block[signs_ofs + static_cast<size_t>(bit / 8)] >> (bit % 8) & std::byte{1}) != std::byte{0};
    return negative ? -magnitude : magnitude;
  }
};

const State& AsState(const CodecState& state) { return static_cast<const State&>(state); }

// ---- verbs

Status Encode(const CodecState& state, const BlockContext&, const float* rows, std::byte* block) {
  const State& s = AsState(state);
  std::memset(block, 0, s.layout.block_bytes());
  for (int t = 0; t < kTokensPerPage; ++t, rows += s.shape.dim) {
    float sum = 0.0f;
    for (int c = 0; c < s.shape.dim; ++c) {
      sum += std::abs(rows[c]);
      const int bit = t * s.shape.dim + c;
      if (rows[c] < 0) block[s.signs_ofs + static_cast<size_t>(bit / 8)] |= std::byte{1} << (bit % 8);
    }
    const float mean = sum / static_cast<float>(s.shape.dim);
    if (!(mean <= kF16Max)) {
      return Status::InvalidArgument(StrFormat("sign: magnitude %g of token %d does not fit fp16", double{mean}, t));
    }
    reinterpret_cast<F16*>(block + s.magnitudes_ofs)[t] = ToF16(mean);
  }
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows) {
  const State& s = AsState(state);
  for (int t = 0; t < kTokensPerPage; ++t) {
    if (!std::isfinite(s.Value(block, t, 0)))
      return Status::Corruption(StrFormat("sign: magnitude %d is not valid", t));
    for (int c = 0; c < s.shape.dim; ++c) rows[t * s.shape.dim + c] = s.Value(block, t, c);
  }
  return Status::Ok();
}

void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared) {
  std::memcpy(prepared, queries, sizeof(float) * static_cast<size_t>(heads * state.shape.dim));
}

void Score(const CodecState& state, const BlockContext&, const std::byte* block, const std::byte* prepared, int heads,
           float* scores) {
  const State& s = AsState(state);
  const auto* query = reinterpret_cast<const float*>(prepared);
  for (int h = 0; h < heads; ++h, query += s.shape.dim) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      float sum = 0.0f;
      for (int c = 0; c < s.shape.dim; ++c) sum += query[c] * s.Value(block, t, c);
      scores[h * kTokensPerPage + t] = sum;
    }
  }
}

void Accumulate(const CodecState& state, const BlockContext&, const std::byte* block, const float* weights, int heads,
                float* acc) {
  const State& s = AsState(state);
  for (int h = 0; h < heads; ++h, acc += s.acc_dim, weights += kTokensPerPage) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (int c = 0; c < s.shape.dim; ++c) acc[c] += weights[t] * s.Value(block, t, c);
    }
  }
}

void Finish(const CodecState& state, const BlockContext&, const float* acc, int heads, float* out) {
  std::memcpy(out, acc, sizeof(float) * static_cast<size_t>(heads * state.shape.dim));
}

// ---- the row of the registry

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions&) {
  if (shape.tokens != kTokensPerPage) return Status::NotSupported(StrFormat("sign: blocks of %d tokens", shape.tokens));
  auto s = std::make_unique<State>(shape);
  const auto values = static_cast<size_t>(kTokensPerPage * shape.dim);
  s->magnitudes_ofs = s->layout.Add("magnitudes", StreamKind::kScales, kTokensPerPage * sizeof(F16));
  s->signs_ofs = s->layout.Add("signs", StreamKind::kCodes, values / 8);
  s->prepared_head_bytes = static_cast<size_t>(shape.dim) * sizeof(float);
  s->acc_dim = shape.dim;
  return std::unique_ptr<CodecState>(std::move(s));
}

// Error on N(0,1): sqrt(1 - 2 / pi) = 0.603.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 1.125, 0.57, 0.63},
    {"", Side::kValue, 1.125, 0.57, 0.63},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "sign",
    .summary = "one bit per value, one magnitude per token",
    .paper = "-",
    .options = {},
    .expectations = kExpectations,
    .make = Make,
    .reference = {Encode, Decode, PrepareQuery, Score, Accumulate, Finish},
};

}  // namespace kvant::sign
