// The fast verbs. No target-specific code here; the kernels are dispatched.
//
// Keys: with 4 or 8 channels a table per query head and group holds the products with all centroids, as bytes, so that
// a token costs one look-up per group and head. With 2 channels there would be more look-ups than products, and bytes
// would not be exact enough. There, and for values, codes become levels, which the tile kernels read like any others.
#include <algorithm>
#include <array>
#include <cstring>

#include "codec/cq/cq_kernels.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/strip.h"
#include "codec/parts/tile_kernels.h"

namespace kvant::cq {
namespace {

constexpr int kQueryPlaneCount = 2;

constexpr auto kTileBits = [] {
  std::array<uint8_t, kMaxDim / kTileChannels> bits{};
  bits.fill(8);
  return bits;
}();

/// Levels of the values of a block, in tiles.
struct Levels {
  alignas(64) uint8_t bytes[kTokensPerPage * kMaxDim];

  TileMatrix matrix(int dim) const {
    return {reinterpret_cast<const std::byte*>(bytes), kTileBits.data(), dim / kTileChannels, nullptr};
  }
};

// ---- encode, decode

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  if (context.basis == nullptr) return NoBasis();
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  const Kernels& kernels = GetKernels();
  float inverse[kMaxDim * (kMaxChannels + 1) / 2];
  InvertMaps(books, inverse);
  Levels levels;
  Strip strip;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    LoadStrip(rows + t * books.dim, static_cast<size_t>(books.dim), kStripRows, books.dim, strip.values);
    kernels.quantize(books, inverse, strip.values, t, levels.bytes);
  }
  std::memset(block, 0, s.layout.block_bytes());
  for (int g = 0; g < books.groups(); ++g) {
    alignas(64) uint16_t codes[kTokensPerPage];
    kernels.search(books, g, levels.bytes, codes);
    StoreCodes(s, g, codes, block);
  }
  return Status::Ok();
}

/// strip [dim][16] of levels -> values: R level + offset. A row of R needs no entry that it has overwritten.
void FromLevels(const Codebooks& books, float* strip) {
  const float* r = books.maps;
  for (int first = 0; first < books.dim; first += books.channels) {
    for (int i = first; i < first + books.channels; ++i) {
      float sums[kStripRows] = {};
      for (int j = i; j < first + books.channels; ++j, ++r) {
        for (int k = 0; k < kStripRows; ++k) sums[k] += *r * strip[j * kStripRows + k];
      }
      for (int k = 0; k < kStripRows; ++k) strip[i * kStripRows + k] = sums[k] + books.offsets[i];
    }
  }
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  if (context.basis == nullptr) return NoBasis();
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  Levels levels;
  GetKernels().expand(books, TileOrder::kTokenLane, CodesOf(s, block), levels.bytes);
  Strip strip;
  for (int t = 0; t < kTokensPerPage; t += kStripRows) {
    for (int c = 0; c < books.dim; ++c) {
      const uint8_t* from = levels.bytes + (c / 4 * kTokensPerPage + t) * 4 + c % 4;
      for (int k = 0; k < kStripRows; ++k) strip.values[c * kStripRows + k] = from[4 * k];
    }
    FromLevels(books, strip.values);
    StoreStrip(strip.values, kStripRows, books.dim, static_cast<size_t>(books.dim), rows + t * books.dim);
  }
  return Status::Ok();
}

// ---- prepare_query, score

/// Prepared queries: unit and bias [heads] of floats in the first 128 bytes, then either the integer operand of the tile
/// kernels, or [heads] tables with their factors and behind them room for the floats that they are made from.
struct PreparedView {
  float* unit;
  float* bias;
  std::byte* data;

  explicit PreparedView(std::byte* prepared)
      : unit(reinterpret_cast<float*>(prepared)), bias(unit + kMaxHeads), data(prepared + 2 * kAlignment) {}

  int8_t* operand() const { return reinterpret_cast<int8_t*>(data); }
  ScoreTable table(const State& s, int head) const {
    std::byte* entries = data + static_cast<size_t>(head) * StrideBytes(s);
    return {reinterpret_cast<uint8_t*>(entries), reinterpret_cast<uint16_t*>(entries + EntryBytes(s)), unit[head],
            bias[head]};
  }
  float* scratch(const State& s, int heads) const {
    return reinterpret_cast<float*>(data + static_cast<size_t>(heads) * StrideBytes(s));
  }
  static size_t EntryBytes(const State& s) { return static_cast<size_t>(s.groups()) << s.bits; }
  static size_t StrideBytes(const State& s) {
    return EntryBytes(s) + AlignUp(static_cast<size_t>(s.groups()) * sizeof(uint16_t));
  }
};

void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared) {
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  const FixedPointKernels& fixed = GetFixedPointKernels();
  const PreparedView view(prepared);
  alignas(64) float mapped[kMaxHeads * kMaxDim];
  for (int h = 0; h < heads; ++h) ApplyTransposedMaps(books, queries + h * books.dim, mapped + h * books.dim);
  fixed.dots(queries, heads, books.offsets, books.dim, view.bias);
  if (!s.has_tables()) {
    fixed.quantize_query(mapped, static_cast<size_t>(books.dim), heads, books.dim, kQueryPlaneCount, nullptr,
                         view.operand(), view.unit, nullptr);
    return;
  }
  ScoreTable tables[kMaxHeads];
  for (int h = 0; h < heads; ++h) tables[h] = view.table(s, h);
  GetKernels().fill_tables(books, mapped, heads, view.scratch(s, heads), tables);
  for (int h = 0; h < heads; ++h) {
    view.unit[h] = tables[h].step;
    view.bias[h] += tables[h].base;
  }
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  const PreparedView view(const_cast<std::byte*>(prepared));
  if (s.has_tables()) {
    ScoreTable tables[kMaxHeads];
    for (int h = 0; h < heads; ++h) tables[h] = view.table(s, h);
    return GetKernels().score(books, CodesOf(s, block), tables, heads, scores);
  }
  Levels levels;
  GetKernels().expand(books, TileOrder::kTokenLane, CodesOf(s, block), levels.bytes);
  alignas(64) int32_t sums[kMaxHeads * kQueryPlaneCount * kTokensPerPage];
  GetTileKernels().score(levels.matrix(books.dim), view.operand(), heads * kQueryPlaneCount, 0, kTokensPerPage, sums);
  GetFixedPointKernels().finish_scores(sums, heads, kQueryPlaneCount, 0, kTokensPerPage, view.unit, nullptr, 0, nullptr,
                                       view.bias, scores);
}

// ---- accumulate; the accumulator is the reference's

void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, context.basis);
  Levels levels;
  GetKernels().expand(books, TileOrder::kChannelLane, CodesOf(s, block), levels.bytes);
  alignas(64) int8_t operand[kMaxHeads * 2 * kTokensPerPage];
  float unit[kMaxHeads];
  float sum[kMaxHeads];
  const int planes = GetFixedPointKernels().quantize_weights(weights, heads, nullptr,
                                                             OnePlaneWeight(s.bits / s.channels), operand, unit, sum);
  GetTileKernels().accumulate(levels.matrix(books.dim), operand, heads, planes, unit, acc,
                              static_cast<size_t>(s.acc_dim));
  for (int h = 0; h < heads; ++h) acc[h * s.acc_dim + books.dim] += sum[h];
}

}  // namespace

const CodecVerbs* SimdVerbs() {
  static constexpr CodecVerbs kVerbs = {
      .encode = Encode, .decode = Decode, .prepare_query = PrepareQuery, .score = Score, .accumulate = Accumulate};
  return &kVerbs;
}

}  // namespace kvant::cq
