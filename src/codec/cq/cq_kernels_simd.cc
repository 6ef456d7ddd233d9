#include "codec/cq/cq_kernels.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/cq/cq_kernels_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant::cq {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR
const Kernels* Best() { return &PlainKernels(); }
#else

using namespace kvant::HWY_NAMESPACE;  // vectors of tiles

constexpr int kTokens = kTokensPerPage;
using DF = hn::Repartition<float, D8>;
using DB = hn::Rebind<uint8_t, D32>;  // bytes that become a vector of words
using D16 = hn::Repartition<uint16_t, D8>;
using V16 = hn::Vec<D16>;
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr DB db;
constexpr D16 d16;

// ------------------------------------------------------------------ encode

/// Levels of channel `c` for one vector of rows.
HWY_INLINE V32 LevelsOfChannel(const Codebooks& b, const float* HWY_RESTRICT inverse, const float* HWY_RESTRICT strip,
                               int c) {
  const int n = b.channels;
  const int i = c % n;
  const float* t = inverse + c / n * TriangleSize(n) + i * n - i * (i - 1) / 2;
  VF sum = hn::Zero(df);
  for (int j = i; j < n; ++j) {
    const int column = c - i + j;
    const VF difference = hn::Sub(hn::LoadU(df, strip + column * kStripRows), hn::Set(df, b.offsets[column]));
    sum = hn::MulAdd(hn::Set(df, t[j - i]), difference, sum);
  }
  return hn::NearestInt(hn::Min(hn::Max(sum, hn::Zero(df)), hn::Set(df, 255.0f)));
}

void Quantize(const Codebooks& b, const float* inverse, const float* strip, int first_token, uint8_t* levels) {
  for (int lane = 0; lane < kStripRows; lane += kLanes32) {
    for (int c = 0; c < b.dim; c += 4) {
      V32 quad = LevelsOfChannel(b, inverse, strip + lane, c);
      quad = hn::Or(quad, hn::ShiftLeft<8>(LevelsOfChannel(b, inverse, strip + lane, c + 1)));
      quad = hn::Or(quad, hn::ShiftLeft<16>(LevelsOfChannel(b, inverse, strip + lane, c + 2)));
      quad = hn::Or(quad, hn::ShiftLeft<24>(LevelsOfChannel(b, inverse, strip + lane, c + 3)));
      hn::StoreU(hn::BitCast(d8, quad), d8, levels + (c / 4 * kTokens + first_token + lane) * 4);
    }
  }
}

/// The centroids of a group as operands of DotBytes, and what the search adds to a product: |x - u|^2 is, but for
/// |x|^2, |u|^2 - 2 x u, and a shift by 128 of u changes the product by what depends on x alone.
template <int kQuads>
struct SearchOperands {
  alignas(64) int32_t quads[kQuads][1 << kMaxBits];  ///< u - 128 of four channels
  alignas(64) int32_t added[1 << kMaxBits];          ///< -(|u|^2 << bits) + last code - code
};

template <int kQuads>
HWY_INLINE void FillOperands(const Codebooks& b, int group, SearchOperands<kQuads>* out) {
  const uint8_t* HWY_RESTRICT centroids = b.centroids + (static_cast<size_t>(group * b.channels) << b.bits);
  const int first = b.channels == 2 ? group % 2 * 2 : 0;  // two groups of two channels share a quad of levels
  const V8 shift = hn::Set(d8, uint8_t{128});
  for (int code = 0; code < b.num_codes(); code += kLanes8) {
    for (int quad = 0; quad < kQuads; ++quad) {
      V8 v[4];
      for (int i = 0; i < 4; ++i) {
        const int channel = quad * 4 + i - first;
        const bool present = channel >= 0 && channel < b.channels;
        v[i] = present ? hn::Xor(hn::LoadU(d8, centroids + (channel << b.bits) + code), shift) : hn::Zero(d8);
      }
      hn::StoreInterleaved4(v[0], v[1], v[2], v[3], d8, reinterpret_cast<uint8_t*>(out->quads[quad] + code));
    }
  }
  for (int code = 0; code < b.num_codes(); code += kLanes32) {
    V32 norm = hn::Zero(d32);
    for (int i = 0; i < b.channels; ++i) {
      const V32 u = hn::PromoteTo(d32, hn::LoadU(db, centroids + (i << b.bits) + code));
      norm = hn::Add(norm, hn::Mul(u, u));
    }
    const V32 order = hn::Sub(hn::Set(d32, b.num_codes() - 1 - code), hn::Iota(d32, 0));
    hn::Store(hn::Sub(order, hn::ShiftLeftSame(norm, b.bits)), d32, out->added + code);
  }
}

/// A distance and its code are one number, so that one maximum serves both: at most 2^20 in size times 2^10.
template <int kQuads, int kBits>
HWY_INLINE void SearchTokens(const SearchOperands<kQuads>& operands, const uint8_t* HWY_RESTRICT levels,
                             uint16_t* HWY_RESTRICT codes) {
  constexpr int kVectors = kMaxAccumulators / 4;
  constexpr int kCodes = 1 << kBits;
  const hn::Repartition<int8_t, D8> ds8;
  V8 x[kQuads][kVectors];
  V32 best[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    for (int q = 0; q < kQuads; ++q) x[q][v] = hn::LoadU(d8, levels + q * 4 * kTokens + v * kLanes8);
    best[v] = hn::Set(d32, INT32_MIN);
  }
  for (int code = 0; code < kCodes; ++code) {
    const V32 added = hn::Set(d32, operands.added[code]);
    for (int v = 0; v < kVectors; ++v) {
      V32 dot = hn::Zero(d32);
      for (int q = 0; q < kQuads; ++q) {
        dot = DotBytes(dot, x[q][v], hn::BitCast(ds8, hn::Set(d32, operands.quads[q][code])));
      }
      best[v] = hn::Max(best[v], hn::Add(hn::ShiftLeft<kBits + 1>(dot), added));
    }
  }
  const hn::Rebind<uint16_t, D32> dcodes;
  for (int v = 0; v < kVectors; ++v) {
    const V32 code = hn::AndNot(best[v], hn::Set(d32, kCodes - 1));
    hn::StoreU(hn::DemoteTo(dcodes, code), dcodes, codes + v * kLanes32);
  }
}

template <int kQuads, int kBits>
void SearchGroup(const Codebooks& b, int group, const uint8_t* levels, uint16_t* codes) {
  SearchOperands<kQuads> operands;
  FillOperands(b, group, &operands);
  levels += group * b.channels / 4 * 4 * kTokens;
  for (int t = 0; t < kTokens; t += kMaxAccumulators / 4 * kLanes32) {
    SearchTokens<kQuads, kBits>(operands, levels + t * 4, codes + t);
  }
}

void Search(const Codebooks& b, int group, const uint8_t* levels, uint16_t* codes) {
  const auto search = b.bits > 8 ? SearchGroup<2, 10> : b.channels == 8 ? SearchGroup<2, 8> : SearchGroup<1, 8>;
  search(b, group, levels, codes);
}

// ------------------------------------------------------------------ look-ups

// 256 bytes. Highway 1.0.3 has no look-up in more than 16, so elsewhere than on AVX-512 with VBMI, which looks up 128 in
// one instruction, it takes one for each 16 of them.
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
struct ByteTable {
  V8 part[4];

  explicit HWY_INLINE ByteTable(const uint8_t* HWY_RESTRICT bytes) {
    for (int i = 0; i < 4; ++i) part[i] = hn::LoadU(d8, bytes + 64 * i);
  }
  HWY_INLINE V8 operator()(V8 code) const {
    const __m512i low = _mm512_permutex2var_epi8(part[0].raw, code.raw, part[1].raw);
    const __m512i high = _mm512_permutex2var_epi8(part[2].raw, code.raw, part[3].raw);
    return V8{_mm512_mask_blend_epi8(_mm512_movepi8_mask(code.raw), low, high)};
  }
};
#else
struct ByteTable {
  const uint8_t* bytes;

  explicit HWY_INLINE ByteTable(const uint8_t* table) : bytes(table) {}
  HWY_INLINE V8 operator()(V8 code) const {
    const V8 low = hn::And(code, hn::Set(d8, uint8_t{15}));
    const V8 high = hn::AndNot(hn::Set(d8, uint8_t{15}), code);
    V8 value = hn::Zero(d8);
    for (int i = 0; i < 16; ++i) {
      const V8 candidate = hn::TableLookupBytes(hn::LoadDup128(d8, bytes + 16 * i), low);
      value = hn::IfThenElse(hn::Eq(high, hn::Set(d8, static_cast<uint8_t>(16 * i))), candidate, value);
    }
    return value;
  }
};
#endif

/// Codes of a vector of tokens: the low byte, and which 256 of the entries it counts in.
template <bool kHigh>
struct CodeVector {
  V8 low;
  V8 high;
};

/// The codes of a block, with bits 8 and 9 one byte per token.
template <bool kHigh>
class BlockCodes {
 public:
  HWY_INLINE BlockCodes(const Codebooks& b, const Codes& codes) : low_(codes.low) {
    if constexpr (kHigh) {
      for (int i = 0; i < b.groups() * kTokens; ++i) {
        high_[i] = (codes.high[i / kTokens * 16 + i % 16] >> (i % kTokens / 16 * 2)) & 3;
      }
    }
  }
  HWY_INLINE CodeVector<kHigh> Load(int group, int token) const {
    const int i = group * kTokens + token;
    return {hn::LoadU(d8, low_ + i), kHigh ? hn::LoadU(d8, high_ + i) : hn::Zero(d8)};
  }

 private:
  const uint8_t* low_;
  alignas(64) uint8_t high_[kHigh ? kMaxDim / 8 * kTokens : 1];
};

template <bool kHigh>
HWY_INLINE V8 LookUp(const uint8_t* HWY_RESTRICT table, CodeVector<kHigh> code) {
  V8 value = ByteTable(table)(code.low);
  if constexpr (kHigh) {
    for (int i = 1; i < 4; ++i) {
      const V8 candidate = ByteTable(table + 256 * i)(code.low);
      value = hn::IfThenElse(hn::Eq(code.high, hn::Set(d8, static_cast<uint8_t>(i))), candidate, value);
    }
  }
  return value;
}

// ------------------------------------------------------------------ expand

/// Levels of the four channels from `channel` on, for a vector of tokens.
template <bool kHigh>
HWY_INLINE void LookUpQuad(const Codebooks& b, const BlockCodes<kHigh>& codes, int channel, int token, V8 (&out)[4]) {
  const size_t table_size = size_t{1} << b.bits;
  const uint8_t* table = b.centroids + static_cast<size_t>(channel) * table_size;
  const int shift = b.channels == 8 ? 3 : b.channels / 2;  // by which a division by 2, 4 or 8 is a shift
  const CodeVector<kHigh> first = codes.Load(channel >> shift, token);
  const CodeVector<kHigh> second = codes.Load((channel + 2) >> shift, token);  // another group when they are pairs
  out[0] = LookUp<kHigh>(table, first);
  out[1] = LookUp<kHigh>(table + table_size, first);
  out[2] = LookUp<kHigh>(table + 2 * table_size, second);
  out[3] = LookUp<kHigh>(table + 3 * table_size, second);
}

template <bool kHigh>
void ExpandTokenLane(const Codebooks& b, const BlockCodes<kHigh>& codes, uint8_t* levels) {
  for (int c = 0; c < b.dim; c += 4) {
    for (int t = 0; t < kTokens; t += kLanes8) {
      V8 v[4];
      LookUpQuad<kHigh>(b, codes, c, t, v);
      hn::StoreInterleaved4(v[0], v[1], v[2], v[3], d8, levels + (c / 4 * kTokens + t) * 4);
    }
  }
}

// In kChannelLane a word holds four tokens of a channel, and a row of 64 bytes those words of a tile's 16 channels. Each
// look-up gives the words of one channel, so words are transposed, by fours within blocks of 16 bytes and then blocks.

const hn::Repartition<uint32_t, D8> du32;
const hn::Repartition<uint64_t, D8> du64;
using VU32 = hn::Vec<decltype(du32)>;

/// Block k of out[i] is made of word 4 k + i of each of the channels.
HWY_INLINE void TransposeWords(const V8 (&channels)[4], V8 (&out)[4]) {
  VU32 v[4];
  for (int i = 0; i < 4; ++i) v[i] = hn::BitCast(du32, channels[i]);
  const auto low01 = hn::BitCast(du64, hn::InterleaveLower(du32, v[0], v[1]));
  const auto low23 = hn::BitCast(du64, hn::InterleaveLower(du32, v[2], v[3]));
  const auto high01 = hn::BitCast(du64, hn::InterleaveUpper(du32, v[0], v[1]));
  const auto high23 = hn::BitCast(du64, hn::InterleaveUpper(du32, v[2], v[3]));
  out[0] = hn::BitCast(d8, hn::InterleaveLower(du64, low01, low23));
  out[1] = hn::BitCast(d8, hn::InterleaveUpper(du64, low01, low23));
  out[2] = hn::BitCast(d8, hn::InterleaveLower(du64, high01, high23));
  out[3] = hn::BitCast(d8, hn::InterleaveUpper(du64, high01, high23));
}

/// Rows `row`, row + 4, ... of a tile from the words of its four quads of channels.
HWY_INLINE void StoreRows(V8 q0, V8 q1, V8 q2, V8 q3, uint8_t* HWY_RESTRICT row) {
  if constexpr (kLanes8 == 64) {
    const V8 even01 = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(q1), q0);
    const V8 even23 = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(q3), q2);
    const V8 odd01 = hn::OddEvenBlocks(q1, hn::SwapAdjacentBlocks(q0));
    const V8 odd23 = hn::OddEvenBlocks(q3, hn::SwapAdjacentBlocks(q2));
    hn::StoreU(hn::ConcatLowerLower(d8, even23, even01), d8, row);
    hn::StoreU(hn::ConcatLowerLower(d8, odd23, odd01), d8, row + 4 * 64);
    hn::StoreU(hn::ConcatUpperUpper(d8, even23, even01), d8, row + 8 * 64);
    hn::StoreU(hn::ConcatUpperUpper(d8, odd23, odd01), d8, row + 12 * 64);
  } else {
    alignas(64) uint8_t blocks[4][kLanes8];
    hn::Store(q0, d8, blocks[0]);
    hn::Store(q1, d8, blocks[1]);
    hn::Store(q2, d8, blocks[2]);
    hn::Store(q3, d8, blocks[3]);
    for (int k = 0; k < kLanes8 / 16; ++k) {
      for (int q = 0; q < 4; ++q) std::memcpy(row + k * 4 * 64 + q * 16, blocks[q] + k * 16, 16);
    }
  }
}

template <bool kHigh>
void ExpandChannelLane(const Codebooks& b, const BlockCodes<kHigh>& codes, uint8_t* levels) {
  for (int c = 0; c < b.dim; c += kTileChannels) {
    for (int t = 0; t < kTokens; t += kLanes8) {
      V8 words[4][4];
      for (int q = 0; q < 4; ++q) {
        V8 v[4];
        LookUpQuad<kHigh>(b, codes, c + 4 * q, t, v);
        TransposeWords(v, words[q]);
      }
      uint8_t* rows = levels + c / kTileChannels * kTileCodes + t / 4 * 64;
      for (int i = 0; i < 4; ++i) StoreRows(words[0][i], words[1][i], words[2][i], words[3][i], rows + i * 64);
    }
  }
}

template <bool kHigh>
void ExpandOrder(const Codebooks& b, TileOrder order, const Codes& packed, uint8_t* levels) {
  const BlockCodes<kHigh> codes(b, packed);
  (order == TileOrder::kTokenLane ? ExpandTokenLane<kHigh> : ExpandChannelLane<kHigh>)(b, codes, levels);
}

void Expand(const Codebooks& b, TileOrder order, const Codes& codes, uint8_t* levels) {
  (b.bits > 8 ? ExpandOrder<true> : ExpandOrder<false>)(b, order, codes, levels);
}

// ------------------------------------------------------------------ score

/// Products of a group's centroids with kHeads mapped queries -> `out` [heads][table_size]; their extremes.
template <int kHeads>
HWY_INLINE void GroupProducts(const Codebooks& b, int group, const float* HWY_RESTRICT queries, size_t table_size,
                              float* HWY_RESTRICT out, float* HWY_RESTRICT min, float* HWY_RESTRICT max) {
  const uint8_t* HWY_RESTRICT centroids = b.centroids + (static_cast<size_t>(group * b.channels) << b.bits);
  VF least[kHeads];
  VF greatest[kHeads];
  for (int h = 0; h < kHeads; ++h) {
    least[h] = hn::Set(df, 3e38f);
    greatest[h] = hn::Set(df, -3e38f);
  }
  for (int code = 0; code < b.num_codes(); code += kLanes32) {
    VF sum[kHeads];
    for (int h = 0; h < kHeads; ++h) sum[h] = hn::Zero(df);
    for (int i = 0; i < b.channels; ++i) {
      const VF level = hn::ConvertTo(df, hn::PromoteTo(d32, hn::LoadU(db, centroids + (i << b.bits) + code)));
      for (int h = 0; h < kHeads; ++h) {
        sum[h] = hn::MulAdd(level, hn::Set(df, queries[h * b.dim + group * b.channels + i]), sum[h]);
      }
    }
    for (int h = 0; h < kHeads; ++h) {
      hn::StoreU(sum[h], df, out + static_cast<size_t>(h) * table_size + code);
      least[h] = hn::Min(least[h], sum[h]);
      greatest[h] = hn::Max(greatest[h], sum[h]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    min[h * kMaxDim] = hn::GetLane(hn::MinOfLanes(df, least[h]));
    max[h * kMaxDim] = hn::GetLane(hn::MaxOfLanes(df, greatest[h]));
  }
}

/// Products [groups][codes] and their extremes by group -> bytes.
HWY_INLINE void RoundTable(const Codebooks& b, const float* HWY_RESTRICT products, const float* min, const float* max,
                           ScoreTable* table) {
  float ranges[kMaxDim];
  table->base = 0.0f;
  for (int g = 0; g < b.groups(); ++g) {
    table->base += min[g];
    ranges[g] = max[g] - min[g];
  }
  ChooseFactors(b.groups(), ranges, table);
  for (int g = 0; g < b.groups(); ++g) {
    const float step = table->step * static_cast<float>(table->factors[g]);
    const VF inverse = hn::Set(df, step > 0.0f ? 1.0f / step : 0.0f);
    for (int i = g << b.bits; i < (g + 1) << b.bits; i += kLanes32) {
      const VF entry = hn::Mul(hn::Sub(hn::LoadU(df, products + i), hn::Set(df, min[g])), inverse);
      hn::StoreU(hn::DemoteTo(db, hn::NearestInt(entry)), db, table->entries + i);
    }
  }
}

template <int kHeads>
void FillHeads(const Codebooks& b, const float* queries, float* scratch, ScoreTable* tables) {
  float min[kHeads][kMaxDim];
  float max[kHeads][kMaxDim];
  const size_t table_size = static_cast<size_t>(b.groups()) << b.bits;
  for (int g = 0; g < b.groups(); ++g) {
    GroupProducts<kHeads>(b, g, queries, table_size, scratch + (g << b.bits), &min[0][g], &max[0][g]);
  }
  for (int h = 0; h < kHeads; ++h) {
    RoundTable(b, scratch + static_cast<size_t>(h) * table_size, min[h], max[h], tables + h);
  }
}

void FillTables(const Codebooks& b, const float* queries, int heads, float* scratch, ScoreTable* tables) {
  int h = 0;
  for (; h + 4 <= heads; h += 4) FillHeads<4>(b, queries + h * b.dim, scratch, tables + h);
  for (; h < heads; ++h) FillHeads<1>(b, queries + h * b.dim, scratch, tables + h);
}

/// kHeads heads over one vector of tokens; entries are added as words of even and of odd tokens.
template <bool kHigh, int kHeads>
HWY_INLINE void ScoreTokens(const Codebooks& b, const BlockCodes<kHigh>& codes, int token, const ScoreTable* tables,
                            float* HWY_RESTRICT scores) {
  V16 even[kHeads];
  V16 odd[kHeads];
  for (int h = 0; h < kHeads; ++h) even[h] = odd[h] = hn::Zero(d16);
  for (int g = 0; g < b.groups(); ++g) {
    const CodeVector<kHigh> code = codes.Load(g, token);
    for (int h = 0; h < kHeads; ++h) {
      const V16 entries = hn::BitCast(d16, LookUp<kHigh>(tables[h].entries + (g << b.bits), code));
      const V16 factor = hn::Set(d16, tables[h].factors[g]);
      even[h] = hn::Add(even[h], hn::Mul(hn::And(entries, hn::Set(d16, uint16_t{0xFF})), factor));
      odd[h] = hn::Add(odd[h], hn::Mul(hn::ShiftRight<8>(entries), factor));
    }
  }
  const hn::Rebind<uint16_t, D32> dhalf;
  alignas(64) uint16_t sums[kLanes8];
  for (int h = 0; h < kHeads; ++h) {
    hn::StoreInterleaved2(even[h], odd[h], d16, sums);
    const VF step = hn::Set(df, tables[h].step);
    const VF base = hn::Set(df, tables[h].base);
    for (int i = 0; i < kLanes8; i += kLanes32) {
      const V32 sum = hn::PromoteTo(d32, hn::LoadU(dhalf, sums + i));
      hn::StoreU(hn::MulAdd(hn::ConvertTo(df, sum), step, base), df, scores + h * kTokens + token + i);
    }
  }
}

template <bool kHigh>
void ScoreHeads(const Codebooks& b, const Codes& packed, const ScoreTable* tables, int heads, float* scores) {
  const BlockCodes<kHigh> codes(b, packed);
  for (int t = 0; t < kTokens; t += kLanes8) {
    int h = 0;
    for (; h + 4 <= heads; h += 4) ScoreTokens<kHigh, 4>(b, codes, t, tables + h, scores + h * kTokens);
    for (; h < heads; ++h) ScoreTokens<kHigh, 1>(b, codes, t, tables + h, scores + h * kTokens);
  }
}

void Score(const Codebooks& b, const Codes& codes, const ScoreTable* tables, int heads, float* scores) {
  (b.bits > 8 ? ScoreHeads<true> : ScoreHeads<false>)(b, codes, tables, heads, scores);
}

const Kernels* Best() {
  static constexpr Kernels kKernels = {Quantize, Search, Expand, FillTables, Score};
  return &kKernels;
}

#endif  // HWY_SCALAR

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant::cq
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant::cq {

HWY_EXPORT(Best);

const Kernels& GetKernels() { return *HWY_DYNAMIC_DISPATCH(Best)(); }

}  // namespace kvant::cq
#endif  // HWY_ONCE
