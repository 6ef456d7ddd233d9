// The verbs of qjl over the dispatched kernels: list products for everything with S, integer tiles for
// scores.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/float16.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/sketch_kernels.h"
#include "codec/parts/tile_kernels.h"
#include "codec/parts/uniform_codec.h"
#include "codec/qjl/qjl.h"

namespace kvant::qjl {
namespace {

/// Directions handled at a time: their signs and projections for a page take 20 KiB of stack.
constexpr int kChunk = 64;
/// The sketch of a query has 15 bits: with one plane of 8 the error of a score is 5e-3 of its RMS, the
/// contract says 2e-3.
constexpr int kPlanes = 2;
/// Floats of sketched queries held at a time where outliers make them differ from group to group.
constexpr int kSketchFloats = 4096;
static_assert(kSketchFloats >= kMaxSketch);

constexpr auto kTileBits = [] {
  std::array<uint8_t, kMaxSketch / kTileChannels> bits{};
  bits.fill(1);
  return bits;
}();

size_t TileByteOfs(int direction) { return static_cast<size_t>(direction / kTileChannels) * TileBytes(1); }

/// out [num_rows, out_stride] += rows [num_rows, dim] over the listed channels, times the directions from
/// `first`.
void AddSketch(const KeyState& s, const float* rows, int num_rows, const ChannelList& list, int first, int directions,
               float* out, size_t out_stride) {
  GetSketchKernels().list_product({.rows = rows,
                                   .row_stride = static_cast<size_t>(s.shape.dim),
                                   .num_rows = num_rows,
                                   .list = list.channels,
                                   .list_size = list.size,
                                   .table = s.matrix->by_channel.data() + first,
                                   .table_stride = static_cast<size_t>(s.matrix->rows),
                                   .columns = directions},
                                  out, out_stride);
}

// ---- encode

/// Signs of all tokens for `directions` directions from `first`, as tiles.
void EncodeSigns(const KeyState& s, const float* rows, const ChannelSplit* splits, size_t part, int first,
                 int directions, std::byte* packed) {
  alignas(64) float projections[kTokensPerPage * kChunk] = {};
  alignas(64) uint8_t codes[kTokensPerPage * kChunk];
  for (int g = 0; g < kGroups; ++g) {
    const int token = g * kGroupTokens;
    AddSketch(s, rows + token * s.shape.dim, kGroupTokens, splits[g][part], first, directions,
              projections + token * directions, static_cast<size_t>(directions));
  }
  GetSketchKernels().sign_codes(projections, kTokensPerPage * directions, codes);
  GetTileKernels().pack(TileOrder::kTokenLane, kTileBits.data(), directions / kTileChannels, codes, packed);
}

Status EncodeKeys(const KeyState& s, const float* rows, std::byte* block) {
  std::memset(block, 0, s.layout.block_bytes());
  ChannelSplit splits[kGroups];
  KVANT_TRY(EncodeScales(s, rows, splits, block));
  for (int p = 0; p < s.num_parts; ++p) {
    const KeyPart& part = s.parts[p];
    for (int first = 0; first < part.bits; first += kChunk) {
      EncodeSigns(s, rows, splits, static_cast<size_t>(p), first, std::min(kChunk, part.bits - first),
                  block + part.signs_byte_ofs + TileByteOfs(first));
    }
  }
  return Status::Ok();
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  if (state.shape.side == Side::kKey) return EncodeKeys(AsKeys(state), rows, block);
  return UniformFastVerbs().encode(state, context, rows, block);
}

// ---- decode

/// Norms of a part times the estimator's scale, per token.
void TokenScales(const KeyPart& part, const std::byte* block, float* scales) {
  const auto* norms = reinterpret_cast<const uint16_t*>(block + part.norms_byte_ofs);
  GetFixedPointKernels().from_f16(norms, kTokensPerPage, scales);
  for (int t = 0; t < kTokensPerPage; ++t) scales[t] *= EstimatorScale(part.bits);
}

/// Signs [64, directions] as +1 and -1.
void DecodeSigns(const KeyPart& part, const std::byte* block, int first, int directions, float* signs) {
  alignas(64) uint8_t codes[kTokensPerPage * kChunk];
  GetTileKernels().unpack(TileOrder::kTokenLane, kTileBits.data(), directions / kTileChannels,
                          block + part.signs_byte_ofs + TileByteOfs(first), codes);
  GetSketchKernels().code_signs(codes, kTokensPerPage * directions, signs);
}

/// rows [64, dim] = scale * sum_i sign_i s_i, outlier channels included.
void DecodeInliers(const KeyState& s, const std::byte* block, float* rows) {
  const KeyPart& part = s.parts[0];
  const size_t dim = static_cast<size_t>(s.shape.dim);
  alignas(64) float signs[kTokensPerPage * kChunk];
  std::fill_n(rows, kTokensPerPage * dim, 0.0f);
  for (int first = 0; first < part.bits; first += kChunk) {
    const int directions = std::min(kChunk, part.bits - first);
    DecodeSigns(part, block, first, directions, signs);
    GetSketchKernels().list_product({.rows = signs,
                                     .row_stride = static_cast<size_t>(directions),
                                     .num_rows = kTokensPerPage,
                                     .list = kEveryIndex.data(),
                                     .list_size = directions,
                                     .table = s.matrix->row(first),
                                     .table_stride = dim,
                                     .columns = s.shape.dim},
                                    rows, dim);
  }
  alignas(64) float scales[kTokensPerPage];
  TokenScales(part, block, scales);
  for (size_t i = 0; i < kTokensPerPage * dim; ++i) rows[i] *= scales[i / dim];
}

/// sums [32, 16]: column i is sum over directions of sign * s[outlier channel i] for the tokens of group `g`.
void SumOutliers(const KeyState& s, const float* signs, int first, int directions, int g, const ChannelList& outliers,
                 float* sums) {
  alignas(64) float table[kChunk * kMaxOutliers] = {};
  for (int i = 0; i < directions; ++i) {
    for (int c = 0; c < outliers.size; ++c) {
      table[i * kMaxOutliers + c] = s.matrix->row(first + i)[outliers.channels[c]];
    }
  }
  GetSketchKernels().list_product({.rows = signs + g * kGroupTokens * directions,
                                   .row_stride = static_cast<size_t>(directions),
                                   .num_rows = kGroupTokens,
                                   .list = kEveryIndex.data(),
                                   .list_size = directions,
                                   .table = table,
                                   .table_stride = kMaxOutliers,
                                   .columns = kMaxOutliers},
                                  sums, kMaxOutliers);
}

/// Replaces the outlier channels of rows [64, dim].
void DecodeOutliers(const KeyState& s, const std::byte* block, float* rows) {
  const KeyPart& part = s.parts[1];
  const ChannelList groups[kGroups] = {StoredOutliers(s, block, 0), StoredOutliers(s, block, 1)};
  alignas(64) float signs[kTokensPerPage * kChunk];
  alignas(64) float sums[kTokensPerPage * kMaxOutliers] = {};
  for (int first = 0; first < part.bits; first += kChunk) {
    const int directions = std::min(kChunk, part.bits - first);
    DecodeSigns(part, block, first, directions, signs);
    for (int g = 0; g < kGroups; ++g) {
      SumOutliers(s, signs, first, directions, g, groups[g], sums + g * kGroupTokens * kMaxOutliers);
    }
  }
  alignas(64) float scales[kTokensPerPage];
  TokenScales(part, block, scales);
  for (int t = 0; t < kTokensPerPage; ++t) {
    const ChannelList& outliers = groups[t / kGroupTokens];
    for (int c = 0; c < outliers.size; ++c) {
      rows[t * s.shape.dim + outliers.channels[c]] = scales[t] * sums[t * kMaxOutliers + c];
    }
  }
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  if (state.shape.side == Side::kValue) return UniformFastVerbs().decode(state, context, block, rows);
  const KeyState& s = AsKeys(state);
  KVANT_TRY(CheckKeyBlock(s, block));
  DecodeInliers(s, block, rows);
  if (s.num_parts > 1) DecodeOutliers(s, block, rows);
  return Status::Ok();
}

// ---- prepare_query, score

/// Sketches of queries as integers: values [heads * kPlanes][directions], unit and offset_sum [heads].
struct IntegerSketch {
  int8_t* values;
  float* unit;
  int32_t* offset_sum;
};

/// A prepared query. Without outliers its sketch is the same for all groups: an IntegerSketch. With outliers
/// the floats that a group's sketches are made from: queries [heads, dim], then sketches [heads, m].
IntegerSketch PreparedIntegers(std::byte* prepared) {
  auto* const unit = reinterpret_cast<float*>(prepared);
  auto* const offset_sum = reinterpret_cast<int32_t*>(unit + kMaxHeads);
  return {.values = reinterpret_cast<int8_t*>(offset_sum + kMaxHeads), .unit = unit, .offset_sum = offset_sum};
}

ChannelList AllChannels(int dim) {
  ChannelList list;
  list.size = dim;
  std::iota(list.channels, list.channels + dim, uint16_t{0});
  return list;
}

/// sketches [heads, m] of queries [heads, dim].
void SketchQueries(const KeyState& s, const float* queries, int heads, float* sketches) {
  const int m = s.parts[0].bits;
  std::fill_n(sketches, heads * m, 0.0f);
  AddSketch(s, queries, heads, AllChannels(s.shape.dim), 0, m, sketches, static_cast<size_t>(m));
}

void PrepareIntegers(const KeyState& s, const float* queries, int heads, const IntegerSketch& q) {
  const int m = s.parts[0].bits;
  alignas(64) float sketches[kSketchFloats];
  for (int h = 0; h < heads; h += kSketchFloats / m) {
    const int batch = std::min(kSketchFloats / m, heads - h);
    SketchQueries(s, queries + h * s.shape.dim, batch, sketches);
    GetFixedPointKernels().quantize_query(sketches, static_cast<size_t>(m), batch, m, kPlanes, nullptr,
                                          q.values + h * kPlanes * m, q.unit + h, q.offset_sum + h);
  }
}

void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared) {
  const KeyState& s = AsKeys(state);
  if (s.num_parts == 1) return PrepareIntegers(s, queries, heads, PreparedIntegers(prepared));
  auto* const floats = reinterpret_cast<float*>(prepared);
  std::copy_n(queries, heads * s.shape.dim, floats);
  SketchQueries(s, queries, heads, floats + heads * s.shape.dim);
}

/// A block, and what to fetch while it is read.
struct Source {
  const std::byte* block;
  ReadAhead* maybe_ahead;
};

/// scores [heads, 64] of the tokens `first` to `last` - 1 from one part.
void ScorePart(const KeyPart& part, const Source& from, const IntegerSketch& q, int heads, int first, int last,
               const float* token_scales, float* scores) {
  alignas(64) int32_t sums[kMaxHeads * kPlanes * kTokensPerPage];
  const TileMatrix signs = {from.block + part.signs_byte_ofs, kTileBits.data(), part.bits / kTileChannels, nullptr,
                            from.maybe_ahead};
  GetTileKernels().score(signs, q.values, heads * kPlanes, first, last, sums);
  for (int column = 0; column < heads * kPlanes; ++column) {  // sum(sign * q) = 2 sum(bit * q) - sum(q)
    for (int t = first; t < last; ++t) sums[column * kTokensPerPage + t] *= 2;
  }
  GetFixedPointKernels().finish_scores(sums, heads, kPlanes, first, last, q.unit, q.offset_sum, 1, token_scales,
                                       nullptr, scores);
}

/// Quantises sketches [heads, stride] and scores one part of group `g` with them.
void ScoreSketches(const KeyPart& part, const Source& from, const float* sketches, size_t stride, int heads, int g,
                   const float* token_scales, float* scores) {
  alignas(64) int8_t values[kSketchFloats * kPlanes];
  float unit[kMaxHeads];
  int32_t offset_sum[kMaxHeads];
  GetFixedPointKernels().quantize_query(sketches, stride, heads, part.bits, kPlanes, nullptr, values, unit, offset_sum);
  ScorePart(part, from, {values, unit, offset_sum}, heads, g * kGroupTokens, (g + 1) * kGroupTokens, token_scales,
            scores);
}

/// What the heads of a batch bring: queries [heads, dim] and their sketches [heads, m].
struct HeadBatch {
  const float* queries;
  const float* sketches;
  int heads;
};

/// Both parts of group `g`: the outlier channels' share of the sketch, and the sketch less that share.
void ScoreGroup(const KeyState& s, const Source& from, const HeadBatch& batch, int g,
                const float (&token_scales)[2][kTokensPerPage], float* scores) {
  const size_t directions = static_cast<size_t>(s.matrix->rows);
  const size_t m = static_cast<size_t>(s.parts[0].bits);
  alignas(64) float sketches[kSketchFloats];
  std::fill_n(sketches, static_cast<size_t>(batch.heads) * directions, 0.0f);
  AddSketch(s, batch.queries, batch.heads, StoredOutliers(s, from.block, g), 0, s.matrix->rows, sketches, directions);
  ScoreSketches(s.parts[1], from, sketches, directions, batch.heads, g, token_scales[1], scores);

  for (int h = 0; h < batch.heads; ++h) {
    float* const sketch = sketches + static_cast<size_t>(h) * directions;
    for (size_t i = 0; i < m; ++i) sketch[i] = batch.sketches[static_cast<size_t>(h) * m + i] - sketch[i];
  }
  alignas(64) float inlier_scores[kMaxHeads * kTokensPerPage];
  ScoreSketches(s.parts[0], from, sketches, directions, batch.heads, g, token_scales[0], inlier_scores);
  for (int h = 0; h < batch.heads; ++h) {
    for (int t = g * kGroupTokens; t < (g + 1) * kGroupTokens; ++t) {
      scores[h * kTokensPerPage + t] += inlier_scores[h * kTokensPerPage + t];
    }
  }
}

void ScoreWithOutliers(const KeyState& s, const Source& from, const float* prepared, int heads, float* scores) {
  alignas(64) float token_scales[2][kTokensPerPage];
  for (int p = 0; p < 2; ++p) TokenScales(s.parts[p], from.block, token_scales[p]);
  const int batch = kSketchFloats / s.matrix->rows;
  for (int h = 0; h < heads; h += batch) {
    const HeadBatch part = {prepared + h * s.shape.dim, prepared + heads * s.shape.dim + h * s.parts[0].bits,
                            std::min(batch, heads - h)};
    for (int g = 0; g < kGroups; ++g) ScoreGroup(s, from, part, g, token_scales, scores + h * kTokensPerPage);
  }
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const KeyState& s = AsKeys(state);
  const Source from = {block, context.maybe_ahead};
  if (s.num_parts > 1) return ScoreWithOutliers(s, from, reinterpret_cast<const float*>(prepared), heads, scores);
  alignas(64) float token_scales[kTokensPerPage];
  TokenScales(s.parts[0], block, token_scales);
  ScorePart(s.parts[0], from, PreparedIntegers(const_cast<std::byte*>(prepared)), heads, 0, kTokensPerPage,
            token_scales, scores);
}

}  // namespace

const CodecVerbs& SimdVerbs() {
  static const CodecVerbs verbs = {
      Encode, Decode, PrepareQuery, Score, UniformFastVerbs().accumulate, UniformFastVerbs().finish};
  return verbs;
}

}  // namespace kvant::qjl
