// The statistics of a segment, and the scalar reference: scales folded into the query and the output.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/float16.h"
#include "codec/calibquant/calibquant.h"
#include "codec/parts/f16_words.h"
#include "codec/parts/uniform_codec.h"

namespace kvant::calibquant {
namespace {

/// A basis comes before the first page is sealed: statistics of one page are the least that the codec needs.
constexpr int kMinTokens = kTokensPerPage;

int Dim(const CodecState& state) { return state.shape.dim; }

GroupParams ParamsOf(const Channels& channels, int c) {
  const float scale = channels.scale[c];
  return {.scale = {}, .min = {}, .min_value = channels.min[c], .inverse = scale > 0.0f ? 1.0f / scale : 0.0f};
}

/// The codes of a tile's tokens [64][16].
struct TileCodes {
  TileCodes(const SegmentState& s, const std::byte* block, int tile) {
    const UniformGroups& g = s.codes;
    UnpackTile(g.order, g.bits, g.codes(block) + static_cast<size_t>(tile) * TileBytes(g.bits), codes[0],
               kTileChannels);
  }
  uint8_t codes[kTokensPerPage][kTileChannels];
};

}  // namespace

Channels::Channels(const SegmentState& s, const std::byte* basis) {
  const int dim = s.shape.dim;
  const auto* words = reinterpret_cast<const uint16_t*>(basis);
  GetFixedPointKernels().from_f16(words, dim, scale);
  GetFixedPointKernels().from_f16(words + dim, dim, min);
}

Result<std::unique_ptr<CodecState>> MakeSegmentState(const BlockShape& shape, const SegmentParams& params) {
  if (shape.tokens != kTokensPerPage) {
    return Status::NotSupported(
        StrFormat("codec calibquant needs blocks of %d tokens, not %d", kTokensPerPage, shape.tokens));
  }
  auto state = std::make_unique<SegmentState>(shape);
  const UniformSpec spec = {.axis = GroupAxis::kChannel,
                            .dim = shape.dim,
                            .bits = params.bits,
                            .group = kTokensPerPage,
                            .range = params.range};
  state->codes = AddUniformCodes(shape.side, spec, state->layout);
  const size_t dim = static_cast<size_t>(shape.dim);
  state->prepared_head_bytes =
      AlignUp(sizeof(float) * dim) + 3 * kAlignment;  // floats and a header, or integers and one
  state->acc_dim = shape.dim + kTileChannels;         // behind the channels: the sum of weights
  state->basis_bytes = AlignUp(2 * sizeof(F16) * dim);
  state->needs_basis = true;
  state->basis_min_tokens = kMinTokens;
  state->basis_refit_tokens = params.refit_tokens;
  return std::unique_ptr<CodecState>(std::move(state));
}

// ---- basis

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis) {
  const UniformGroups& g = AsSegment(state).codes;
  const size_t dim = static_cast<size_t>(Dim(state));
  std::memset(basis, 0, state.basis_bytes);
  auto* words = reinterpret_cast<F16*>(basis);
  std::vector<float> column(data.tokens);
  for (size_t c = 0; c < dim; ++c) {
    for (size_t t = 0; t < data.tokens; ++t) column[t] = data.rows[t * dim + c];
    const RangeEnds ends = FindRange(g.range, g.sum_order(), column.data(), static_cast<int>(data.tokens));
    const GroupParams params = FitGroup(ends.low, ends.high, g.bits);
    words[c] = params.scale;
    words[dim + c] = params.min;
  }
  return CheckBasis(state, basis).ok() ? Status::Ok() : GroupParamsOverflow();
}

Status CheckBasis(const CodecState& state, const std::byte* basis) {
  const int dim = Dim(state);
  const auto* words = reinterpret_cast<const uint16_t*>(basis);
  bool valid = true;
  for (int c = 0; c < dim; ++c) valid &= IsScaleWord(words[c]) && IsFiniteWord(words[dim + c]);
  return valid ? Status::Ok() : GroupParamsCorrupt();
}

// ---- verbs

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  if (!IsSegment(state)) return uniform_reference::Encode(state, context, rows, block);
  const SegmentState& s = AsSegment(state);
  const UniformGroups& g = s.codes;
  const Channels channels(s, context.basis);
  std::memset(block, 0, s.layout.block_bytes());
  for (int tile = 0; tile < g.num_tiles(); ++tile) {
    uint8_t codes[kTileCodes];
    for (int i = 0; i < kTileCodes; ++i) {
      const int c = tile * kTileChannels + i % kTileChannels;
      codes[i] = EncodeUniform(ParamsOf(channels, c), g.top(), rows[i / kTileChannels * g.dim + c]);
    }
    PackTile(g.order, g.bits, codes, kTileChannels, g.codes(block) + static_cast<size_t>(tile) * TileBytes(g.bits));
  }
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  if (!IsSegment(state)) return uniform_reference::Decode(state, context, block, rows);
  const SegmentState& s = AsSegment(state);
  const Channels channels(s, context.basis);
  for (int tile = 0; tile < s.codes.num_tiles(); ++tile) {
    const TileCodes tile_codes(s, block, tile);
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (int i = 0; i < kTileChannels; ++i) {
        const int c = tile * kTileChannels + i;
        rows[t * s.shape.dim + c] = tile_codes.codes[t][i] * channels.scale[c] + channels.min[c];
      }
    }
  }
  return Status::Ok();
}

// q . row = sum of (q scale) code + q . min. Prepared, per head: q scale [dim], q . min.

namespace {
int PreparedStride(const CodecState& state) { return static_cast<int>(state.prepared_head_bytes / sizeof(float)); }
}  // namespace

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  if (!IsSegment(state)) return uniform_reference::PrepareQuery(state, context, queries, heads, prepared);
  const int dim = Dim(state);
  const Channels channels(AsSegment(state), context.basis);
  for (int h = 0; h < heads; ++h) {
    float* out = reinterpret_cast<float*>(prepared) + h * PreparedStride(state);
    float bias = 0.0f;
    for (int c = 0; c < dim; ++c) {
      out[c] = queries[h * dim + c] * channels.scale[c];
      bias += queries[h * dim + c] * channels.min[c];
    }
    out[dim] = bias;
  }
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  if (!IsSegment(state)) return uniform_reference::Score(state, context, block, prepared, heads, scores);
  const SegmentState& s = AsSegment(state);
  const auto* queries = reinterpret_cast<const float*>(prepared);
  for (int h = 0; h < heads; ++h) {
    std::fill_n(scores + h * kTokensPerPage, kTokensPerPage, queries[h * PreparedStride(state) + s.shape.dim]);
  }
  for (int tile = 0; tile < s.codes.num_tiles(); ++tile) {
    const TileCodes tile_codes(s, block, tile);
    for (int h = 0; h < heads; ++h) {
      const float* q = queries + h * PreparedStride(state) + tile * kTileChannels;
      for (int t = 0; t < kTokensPerPage; ++t) {
        for (int i = 0; i < kTileChannels; ++i) scores[h * kTokensPerPage + t] += q[i] * tile_codes.codes[t][i];
      }
    }
  }
}

// sum of w row = scale * (sum of w code) + min * (sum of w); both sums are what the accumulator holds.

void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  if (!IsSegment(state)) return uniform_reference::Accumulate(state, context, block, weights, heads, acc);
  const SegmentState& s = AsSegment(state);
  for (int tile = 0; tile < s.codes.num_tiles(); ++tile) {
    const TileCodes tile_codes(s, block, tile);
    for (int h = 0; h < heads; ++h) {
      float* out = acc + h * s.acc_dim + tile * kTileChannels;
      for (int t = 0; t < kTokensPerPage; ++t) {
        for (int i = 0; i < kTileChannels; ++i) out[i] += weights[h * kTokensPerPage + t] * tile_codes.codes[t][i];
      }
    }
  }
  for (int h = 0; h < heads; ++h) {
    for (int t = 0; t < kTokensPerPage; ++t) acc[h * s.acc_dim + s.shape.dim] += weights[h * kTokensPerPage + t];
  }
}

void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out) {
  if (!IsSegment(state)) return uniform_reference::Finish(state, context, acc, heads, out);
  const Channels channels(AsSegment(state), context.basis);
  for (int h = 0; h < heads; ++h, acc += state.acc_dim, out += Dim(state)) {
    for (int c = 0; c < Dim(state); ++c) out[c] = acc[c] * channels.scale[c] + acc[Dim(state)] * channels.min[c];
  }
}

}  // namespace kvant::calibquant
