#include "codec/cq/cq.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kvant::cq {

// ---- views

size_t BasisBytes(int dim, int channels, int bits) {
  const auto values = static_cast<size_t>(dim);
  const size_t floats = values + static_cast<size_t>(dim / channels * TriangleSize(channels));
  return AlignUp(floats * sizeof(float) + (values << bits));
}

Codebooks ViewBasis(const State& s, const std::byte* basis) {
  const auto* floats = reinterpret_cast<const float*>(basis);
  const float* maps = floats + s.shape.dim;
  const auto* end = maps + s.groups() * TriangleSize(s.channels);
  return {s.shape.dim, s.channels, s.bits, floats, maps, reinterpret_cast<const uint8_t*>(end)};
}

Codes CodesOf(const State& s, const std::byte* block) {
  return {reinterpret_cast<const uint8_t*>(block + s.codes_ofs),
          s.bits == 8 ? nullptr : reinterpret_cast<const uint8_t*>(block + s.high_ofs)};
}

void StoreCodes(const State& s, int group, const uint16_t* codes, std::byte* block) {
  std::byte* low = block + s.codes_ofs + group * kTokensPerPage;
  for (int t = 0; t < kTokensPerPage; ++t) low[t] = static_cast<std::byte>(codes[t]);
  if (s.bits == 8) return;
  std::byte* high = block + s.high_ofs + group * 16;
  for (int t = 0; t < kTokensPerPage; ++t) high[t % 16] |= static_cast<std::byte>((codes[t] >> 8) << (t / 16 * 2));
}

// ---- the map of a group; row i of a triangle holds columns i .. channels - 1

void InvertMaps(const Codebooks& b, float* inverse) {
  const int n = b.channels;
  const auto at = [n](int i, int j) { return i * n - i * (i - 1) / 2 + j - i; };
  for (int g = 0; g < b.groups(); ++g) {
    const float* r = b.maps + g * TriangleSize(n);
    float* t = inverse + g * TriangleSize(n);
    double reciprocal[kMaxChannels];  // divisions are slow, and this is done for every block
    for (int i = 0; i < n; ++i) reciprocal[i] = 1.0 / static_cast<double>(r[at(i, i)]);
    for (int j = 0; j < n; ++j) {
      double column[kMaxChannels];  // of R^-1, from the diagonal up
      for (int i = j; i >= 0; --i) {
        double sum = i == j ? 1.0 : 0.0;
        for (int k = i + 1; k <= j; ++k) sum -= static_cast<double>(r[at(i, k)]) * column[k];
        column[i] = sum * reciprocal[i];
        t[at(i, j)] = static_cast<float>(column[i]);
      }
    }
  }
}

namespace {

// The number of channels is a constant and the loops are unrolled: they are short, and run for every query.
template <int kChannels>
void ApplyTriangles(const Codebooks& b, const float* in, float* out) {
  const float* r = b.maps;
  for (int first = 0; first < b.dim; first += kChannels) {
#pragma GCC unroll 8
    for (int i = 0; i < kChannels; ++i) {
      float sum = 0.0f;
#pragma GCC unroll 8
      for (int j = i; j < kChannels; ++j) sum += *r++ * in[first + j];
      out[first + i] = sum;
    }
  }
}

template <int kChannels>
void ApplyTransposedTriangles(const Codebooks& b, const float* in, float* out) {
  const float* r = b.maps;
  for (int first = 0; first < b.dim; first += kChannels, r += TriangleSize(kChannels)) {
    float sums[kChannels];
#pragma GCC unroll 8
    for (int j = 0; j < kChannels; ++j) {
      sums[j] = 0.0f;
#pragma GCC unroll 8
      for (int i = 0; i <= j; ++i) sums[j] += r[i * kChannels - i * (i - 1) / 2 + j - i] * in[first + i];
    }
    std::copy_n(sums, kChannels, out + first);
  }
}

}  // namespace

void ApplyMaps(const Codebooks& b, const float* in, float* out) {
  const auto apply = b.channels == 2 ? ApplyTriangles<2> : b.channels == 4 ? ApplyTriangles<4> : ApplyTriangles<8>;
  apply(b, in, out);
}

void ApplyTransposedMaps(const Codebooks& b, const float* in, float* out) {
  const auto apply = b.channels == 2   ? ApplyTransposedTriangles<2>
                     : b.channels == 4 ? ApplyTransposedTriangles<4>
                                       : ApplyTransposedTriangles<8>;
  apply(b, in, out);
}

void RowLevels(const Codebooks& b, const float* inverse, const float* row, uint8_t* levels) {
  for (int first = 0; first < b.dim; first += b.channels) {
    for (int i = first; i < first + b.channels; ++i) {
      float sum = 0.0f;
      for (int j = i; j < first + b.channels; ++j) sum += *inverse++ * (row[j] - b.offsets[j]);
      levels[i] = static_cast<uint8_t>(std::nearbyint(std::clamp(sum, 0.0f, 255.0f)));
    }
  }
}

int NearestCode(const Codebooks& b, int group, const uint8_t* levels) {
  const uint8_t* centroids = b.centroids + (static_cast<size_t>(group * b.channels) << b.bits);
  int best = 0;
  int least = INT32_MAX;
  for (int code = 0; code < b.num_codes(); ++code) {
    int distance = 0;
    for (int i = 0; i < b.channels; ++i) {
      const int difference = levels[i] - centroids[(i << b.bits) + code];
      distance += difference * difference;
    }
    if (distance < least) best = code;
    least = std::min(least, distance);
  }
  return best;
}

Status NoBasis() {
  return Status::InvalidArgument(
      "codec cq: no codebooks; they come from a calibration, which this cache was not given");
}

namespace {

// ---- encode, decode

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  if (context.basis == nullptr) return NoBasis();
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  float inverse[kMaxDim * (kMaxChannels + 1) / 2];
  InvertMaps(books, inverse);
  uint8_t levels[kTokensPerPage][kMaxDim];
  for (int t = 0; t < kTokensPerPage; ++t) RowLevels(books, inverse, rows + t * s.shape.dim, levels[t]);
  std::memset(block, 0, s.layout.block_bytes());
  for (int g = 0; g < s.groups(); ++g) {
    uint16_t codes[kTokensPerPage];
    for (int t = 0; t < kTokensPerPage; ++t) {
      codes[t] = static_cast<uint16_t>(NearestCode(books, g, levels[t] + g * s.channels));
    }
    StoreCodes(s, g, codes, block);
  }
  return Status::Ok();
}

/// Row `token` of a block, [dim].
void DecodeRow(const State& s, const Codebooks& books, const std::byte* block, int token, float* row) {
  const Codes codes = CodesOf(s, block);
  for (int c = 0; c < books.dim; ++c) {
    row[c] = books.centroids[(static_cast<size_t>(c) << books.bits) +
                             static_cast<size_t>(codes.at(c / books.channels, token))];
  }
  ApplyMaps(books, row, row);
  for (int c = 0; c < books.dim; ++c) row[c] += books.offsets[c];
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  if (context.basis == nullptr) return NoBasis();
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  for (int t = 0; t < kTokensPerPage; ++t) DecodeRow(s, books, block, t, rows + t * s.shape.dim);
  return Status::Ok();
}

// ---- prepare_query, score: keys as attention sees them (rope=after)

void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared) {
  std::memcpy(prepared, queries, sizeof(float) * static_cast<size_t>(heads * state.shape.dim));
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  const auto* queries = reinterpret_cast<const float*>(prepared);
  for (int t = 0; t < kTokensPerPage; ++t) {
    float row[kMaxDim];
    DecodeRow(s, books, block, t, row);
    for (int h = 0; h < heads; ++h) {
      float sum = 0.0f;
      for (int c = 0; c < books.dim; ++c) sum += queries[h * books.dim + c] * row[c];
      scores[h * kTokensPerPage + t] = sum;
    }
  }
}

// ---- accumulate, finish: sums of levels [dim], then the sum of the weights

void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  const Codes codes = CodesOf(s, block);
  for (int h = 0; h < heads; ++h, weights += kTokensPerPage, acc += s.acc_dim) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (int c = 0; c < books.dim; ++c) {
        const auto code = static_cast<size_t>(codes.at(c / books.channels, t));
        acc[c] += weights[t] * books.centroids[(static_cast<size_t>(c) << books.bits) + code];
      }
      acc[books.dim] += weights[t];
    }
  }
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  for (int h = 0; h < heads; ++h, acc += s.acc_dim, out += books.dim) {
    ApplyMaps(books, acc, out);
    for (int c = 0; c < books.dim; ++c) out[c] += books.offsets[c] * acc[books.dim];
  }
}

// ---- the row of the registry

constexpr OptionInfo kOptions[] = {
    {"channels", "4", "2, 4, 8", "channels that share a code"},
    {"bits", "8", "8; 10 with channels=8", "bits of a code"},
    {"rope", "after", "after", "K: keys are coded after RoPE, as attention sees them"},
};

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  static constexpr int kChannels[] = {2, 4, 8};
  static constexpr int kBits[] = {8, 10};
  const OptionReader reader(kInfo, options);
  const Result<int> channels = reader.GetInt("channels", kChannels);
  if (!channels.ok()) return channels.status();
  const Result<int> bits = reader.GetInt("bits", kBits);
  if (!bits.ok()) return bits.status();
  if (*bits > 8 && *channels != 8) return reader.Refuse("bits", StrFormat("with channels=%d", *channels));
  if (reader.Get("rope") == "before") {
    return Status::NotSupported("codec cq: rope=before is not supported by this version; accepted: after");
  }
  if (reader.Get("rope") != "after") return reader.Refuse("rope", "");
  if (shape.tokens != kTokensPerPage) return Status::NotSupported(StrFormat("cq: blocks of %d tokens", shape.tokens));

  auto s = std::make_unique<State>(shape);
  s->channels = *channels;
  s->bits = *bits;
  const auto groups = static_cast<size_t>(s->groups());
  s->codes_ofs = s->layout.Add("codes", StreamKind::kCodes, groups * kTokensPerPage);
  if (s->bits > 8) s->high_ofs = s->layout.Add("codes_high", StreamKind::kCodes, groups * kTokensPerPage / 4);
  // Room for what either implementation keeps: queries as floats or integers, or tables of bytes made from floats.
  const size_t query_bytes = static_cast<size_t>(shape.dim) * sizeof(float);
  const size_t table_bytes = (groups << s->bits) * (1 + sizeof(float)) + AlignUp(groups * sizeof(uint16_t));
  s->prepared_head_bytes = AlignUp(s->has_tables() ? table_bytes : query_bytes) + 2 * kAlignment;
  s->acc_dim = shape.dim + 16;
  s->basis_bytes = BasisBytes(shape.dim, s->channels, s->bits);
  s->needs_calibration = true;
  return std::unique_ptr<CodecState>(std::move(s));
}

// Codebooks fitted to 2,048 rows of N(0,1), errors +-5 % on rows that were not among them: 8 rows per centroid, with 10
// bits 2, so the errors of more than 2 channels are above those of infinitely many rows.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 2.0, 0.314, 0.346},
    {"", Side::kValue, 2.0, 0.314, 0.346},
    {"channels=2", Side::kKey, 4.0, 0.0945, 0.1045},
    {"channels=2", Side::kValue, 4.0, 0.0945, 0.1045},
    {"channels=8", Side::kKey, 1.0, 0.563, 0.622},
    {"channels=8", Side::kValue, 1.0, 0.563, 0.622},
    {"channels=8,bits=10", Side::kKey, 1.25, 0.483, 0.534},
    {"channels=8,bits=10", Side::kValue, 1.25, 0.483, 0.534},
};

constexpr CodecPair kTypical[] = {
    {"channels=2", "channels=2"},
    {"channels=4", "channels=4"},
    {"channels=8,bits=10", "channels=8,bits=10"},
    {"channels=8", "channels=8"},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "cq",
    .summary = "2, 4 or 8 channels share a code: the nearest centroid of a calibrated codebook, 4 to 1 bits per value",
    .paper = "Zhang et al., Coupled Quantization, arXiv:2405.03917",
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .max_code_mismatch = 1e-4,
    .make = Make,
    .fit_basis = FitBasis,
    .check_basis = CheckBasis,
    .reference = {Encode, Decode, PrepareQuery, Score, Accumulate, Finish},
    .simd = SimdVerbs,
};

}  // namespace kvant::cq
