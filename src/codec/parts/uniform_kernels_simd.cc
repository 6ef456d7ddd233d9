#include "codec/parts/uniform_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/uniform_kernels_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After highway.h.
#include "codec/parts/float16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<DF>;
using D8 = hn::Rebind<uint8_t, DF>;
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr DI di;
constexpr D8 d8;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));
constexpr int kTokens = 64;

// ------------------------------------------------------------------ ranges

// Extremes of kV vectors of channels at once: the chains of min and max of one vector alone would wait for each other.
template <int kV>
HWY_INLINE void ExtremesOfVectors(const float* HWY_RESTRICT rows, int dim, int tokens, float factor,
                                  float* HWY_RESTRICT min, float* HWY_RESTRICT max) {
  VF low[kV], high[kV];
  for (int v = 0; v < kV; ++v) low[v] = high[v] = hn::LoadU(df, rows + v * kLanes);
  for (int t = 1; t < tokens; ++t) {
    const float* row = rows + static_cast<size_t>(t) * static_cast<size_t>(dim);
    for (int v = 0; v < kV; ++v) {
      const VF x = hn::LoadU(df, row + v * kLanes);
      low[v] = hn::Min(low[v], x);
      high[v] = hn::Max(high[v], x);
    }
  }
  for (int v = 0; v < kV; ++v) {
    hn::StoreU(hn::Mul(low[v], hn::Set(df, factor)), df, min + v * kLanes);
    hn::StoreU(hn::Mul(high[v], hn::Set(df, factor)), df, max + v * kLanes);
  }
}

void ChannelExtremes(const float* rows, int dim, int tokens, float factor, float* min, float* max) {
  constexpr int kVectors = 4;
  int c = 0;
  for (; c + kVectors * kLanes <= dim; c += kVectors * kLanes) {
    ExtremesOfVectors<kVectors>(rows + c, dim, tokens, factor, min + c, max + c);
  }
  for (; c < dim; c += kLanes) ExtremesOfVectors<1>(rows + c, dim, tokens, factor, min + c, max + c);
}

// Keeps the `tail` + 1 least values of each channel in order; the last of them is the quantile. The greatest are the
// least of the negated values.
HWY_INLINE VF TailOfVector(const float* HWY_RESTRICT rows, int dim, int tokens, int tail, VF sign) {
  HWY_ALIGN float least[(kMaxQuantileTail + 1) * kLanes];
  for (int i = 0; i <= tail; ++i) hn::Store(hn::Set(df, hwy::HighestValue<float>()), df, least + i * kLanes);
  for (int t = 0; t < tokens; ++t, rows += dim) {
    VF x = hn::Mul(hn::LoadU(df, rows), sign);
    for (int i = 0; i <= tail; ++i) {
      const VF kept = hn::Load(df, least + i * kLanes);
      hn::Store(hn::Min(kept, x), df, least + i * kLanes);
      x = hn::Max(kept, x);
    }
  }
  return hn::Mul(hn::Load(df, least + tail * kLanes), sign);
}

void ChannelQuantiles(const float* rows, int dim, int tokens, int tail, float* min, float* max) {
  for (int c = 0; c < dim; c += kLanes) {
    hn::StoreU(TailOfVector(rows + c, dim, tokens, tail, hn::Set(df, 1.0f)), df, min + c);
    hn::StoreU(TailOfVector(rows + c, dim, tokens, tail, hn::Set(df, -1.0f)), df, max + c);
  }
}

// mean -+ factor * mean distance from it, of sums over `count` values.
HWY_INLINE void StoreSpread(VF mean, VF distances, int count, float factor, float* min, float* max) {
  const VF spread = hn::Mul(hn::Div(distances, hn::Set(df, static_cast<float>(count))), hn::Set(df, factor));
  hn::StoreU(hn::Sub(mean, spread), df, min);
  hn::StoreU(hn::Add(mean, spread), df, max);
}

void ChannelSpreads(const GroupRange& range, const float* rows, int dim, int tokens, float* min, float* max) {
  for (int c = 0; c < dim; c += kLanes) {
    VF mean = hn::Zero(df);
    VF distances = hn::Zero(df);
    if (range.rule == RangeRule::kSpread) {
      for (int t = 0; t < tokens; ++t) mean = hn::Add(mean, hn::LoadU(df, rows + t * dim + c));
      mean = hn::Div(mean, hn::Set(df, static_cast<float>(tokens)));
    }
    for (int t = 0; t < tokens; ++t) {
      distances = hn::Add(distances, hn::Abs(hn::Sub(hn::LoadU(df, rows + t * dim + c), mean)));
    }
    StoreSpread(mean, distances, tokens, range.amount, min + c, max + c);
  }
}

void ChannelRanges(const GroupRange& range, const float* rows, int dim, int tokens, float* min, float* max) {
  switch (range.rule) {
    case RangeRule::kExtremes:
      return ChannelExtremes(rows, dim, tokens, 1.0f, min, max);
    case RangeRule::kShrunk:
      return ChannelExtremes(rows, dim, tokens, range.amount, min, max);
    case RangeRule::kQuantile:
      return ChannelQuantiles(rows, dim, tokens, QuantileTail(range.amount, tokens), min, max);
    case RangeRule::kSpread:
    case RangeRule::kSign:
      return ChannelSpreads(range, rows, dim, tokens, min, max);
  }
}

HWY_INLINE RangeEnds TokenExtremes(const float* HWY_RESTRICT x, int group, float factor) {
  VF low = hn::LoadU(df, x);
  VF high = low;
  for (int i = kLanes; i < group; i += kLanes) {
    const VF v = hn::LoadU(df, x + i);
    low = hn::Min(low, v);
    high = hn::Max(high, v);
  }
  return {hn::GetLane(hn::MinOfLanes(df, low)) * factor, hn::GetLane(hn::MaxOfLanes(df, high)) * factor};
}

// Mean of term(vector) over a group of channels, in the order SumOrder::kInSixteens.
template <class Term>
HWY_INLINE float MeanInSixteens(const float* HWY_RESTRICT x, int group, const Term& term) {
  HWY_ALIGN float sums[16];
  for (int lane = 0; lane < 16; lane += kLanes) {
    VF sum = hn::Zero(df);
    for (int i = lane; i < group; i += 16) sum = hn::Add(sum, term(hn::LoadU(df, x + i)));
    hn::Store(sum, df, sums + lane);
  }
  return AddSixteen(sums) / static_cast<float>(group);
}

HWY_INLINE RangeEnds TokenSpread(const GroupRange& range, const float* HWY_RESTRICT x, int group) {
  const float mean =
      range.rule == RangeRule::kSpread ? MeanInSixteens(x, group, [](VF v) HWY_ATTR { return v; }) : 0.0f;
  const VF center = hn::Set(df, mean);
  const auto distance = [center](VF v) HWY_ATTR { return hn::Abs(hn::Sub(v, center)); };
  const float spread = MeanInSixteens(x, group, distance) * range.amount;
  return {mean - spread, mean + spread};
}

void TokenRanges(const GroupRange& range, const float* rows, int dim, int group, float* min, float* max) {
  const bool by_extremes = range.rule == RangeRule::kExtremes || range.rule == RangeRule::kShrunk;
  const float factor = range.rule == RangeRule::kShrunk ? range.amount : 1.0f;
  for (int t = 0; t < kTokens; ++t, rows += dim) {
    for (int c = 0; c < dim; c += group) {
      const RangeEnds ends = by_extremes ? TokenExtremes(rows + c, group, factor) : TokenSpread(range, rows + c, group);
      min[c / group * kTokens + t] = ends.low;
      max[c / group * kTokens + t] = ends.high;
    }
  }
}

// ------------------------------------------------------------------ encode

// Rounds to fp16, stores the words and returns what they mean.
HWY_INLINE VF StoreF16(VF v, uint16_t* HWY_RESTRICT words) {
  hn::StoreU(ToF16Words(df, v), hn::Rebind<uint16_t, DF>(), words);
  return FromF16Words(df, words);
}

// 1 / scale, or 0: the codes of a constant group are 0.
HWY_INLINE VF InverseOf(VF scale) {
  return hn::IfThenElseZero(hn::Gt(scale, hn::Zero(df)), hn::Div(hn::Set(df, 1.0f), scale));
}

void FitSymmetric(float* min, float* max, int n, int top, uint16_t* scales) {
  const VF half_levels = hn::Set(df, 0.5f * static_cast<float>(top));
  for (int i = 0; i < n; i += kLanes) {
    const VF scale = StoreF16(hn::Div(hn::LoadU(df, max + i), half_levels), scales + i);
    hn::StoreU(hn::Neg(hn::Mul(half_levels, scale)), df, min + i);
    hn::StoreU(InverseOf(scale), df, max + i);
  }
}

void Fit(float* min, float* max, int n, int top, uint16_t* scales, uint16_t* mins) {
  if (mins == nullptr) return FitSymmetric(min, max, n, top, scales);
  const VF zero = hn::Zero(df);
  const VF levels = hn::Set(df, static_cast<float>(top));
  for (int i = 0; i < n; i += kLanes) {
    const VF low = StoreF16(hn::Add(hn::LoadU(df, min + i), zero), mins + i);  // the sum turns -0 into +0
    const VF range = hn::Max(hn::Sub(hn::LoadU(df, max + i), low), zero);
    const VF scale = StoreF16(hn::Add(hn::Div(range, levels), zero), scales + i);
    hn::StoreU(low, df, min + i);
    hn::StoreU(InverseOf(scale), df, max + i);
  }
}

HWY_INLINE void QuantizeVector(const float* HWY_RESTRICT x, VF min, VF inverse, VF top, uint8_t* HWY_RESTRICT codes) {
  // In 2^23 .. 2^24 the step of a float is 1: the addition rounds to an integer, half to even, on every target.
  constexpr float kRound = 8388608.0f;
  const VF step = hn::Mul(hn::Sub(hn::LoadU(df, x), min), inverse);
  const VF clamped = hn::Min(hn::Max(step, hn::Zero(df)), top);
  const auto bits = hn::BitCast(di, hn::Add(clamped, hn::Set(df, kRound)));
  hn::StoreU(hn::DemoteTo(d8, hn::Sub(bits, hn::BitCast(di, hn::Set(df, kRound)))), d8, codes);
}

void QuantizeChannels(const float* rows, int dim, int tokens, const float* min, const float* inverse, int top,
                      uint8_t* codes) {
  const VF top_code = hn::Set(df, static_cast<float>(top));
  for (int t = 0; t < tokens; ++t, rows += dim, codes += dim) {
    for (int c = 0; c < dim; c += kLanes) {
      QuantizeVector(rows + c, hn::LoadU(df, min + c), hn::LoadU(df, inverse + c), top_code, codes + c);
    }
  }
}

void QuantizeTokens(const float* rows, int dim, int group, const float* min, const float* inverse, int top,
                    uint8_t* codes) {
  const VF top_code = hn::Set(df, static_cast<float>(top));
  for (int t = 0; t < kTokens; ++t, rows += dim, codes += dim) {
    for (int c = 0; c < dim; c += group) {
      const VF low = hn::Set(df, min[c / group * kTokens + t]);
      const VF factor = hn::Set(df, inverse[c / group * kTokens + t]);
      for (int i = c; i < c + group; i += kLanes) QuantizeVector(rows + i, low, factor, top_code, codes + i);
    }
  }
}

// ------------------------------------------------------------------ decode

HWY_INLINE void DequantizeVector(const uint8_t* HWY_RESTRICT codes, VF scale, VF min, float* HWY_RESTRICT out) {
  const VF code = hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(d8, codes)));
  hn::StoreU(hn::MulAdd(code, scale, min), df, out);  // the product is exact, so fused or not is the same
}

void DequantizeChannels(const uint8_t* codes, int dim, int tokens, const float* scale, const float* min, float* rows) {
  for (int t = 0; t < tokens; ++t, rows += dim, codes += dim) {
    for (int c = 0; c < dim; c += kLanes) {
      DequantizeVector(codes + c, hn::LoadU(df, scale + c), hn::LoadU(df, min + c), rows + c);
    }
  }
}

void DequantizeTokens(const uint8_t* codes, int dim, int group, const float* scale, const float* min, float* rows) {
  for (int t = 0; t < kTokens; ++t, rows += dim, codes += dim) {
    for (int c = 0; c < dim; c += group) {
      const VF factor = hn::Set(df, scale[c / group * kTokens + t]);
      const VF low = hn::Set(df, min[c / group * kTokens + t]);
      for (int i = c; i < c + group; i += kLanes) DequantizeVector(codes + i, factor, low, rows + i);
    }
  }
}

// ------------------------------------------------------------------ read path

void AddScaled(const float* a, const float* b, float factor, int n, float* sum) {
  const VF f = hn::Set(df, factor);
  for (int i = 0; i < n; i += kLanes) {
    const VF rest = hn::Add(hn::LoadU(df, a + i), hn::LoadU(df, sum + i));
    hn::StoreU(hn::MulAdd(hn::LoadU(df, b + i), f, rest), df, sum + i);
  }
}

void AddProducts(const float* a, const float* b, const float* c, float factor, int n, float* sum) {
  const VF f = hn::Set(df, factor);
  for (int i = 0; i < n; i += kLanes) {
    const VF rest = hn::MulAdd(hn::LoadU(df, c + i), f, hn::LoadU(df, sum + i));
    hn::StoreU(hn::MulAdd(hn::LoadU(df, a + i), hn::LoadU(df, b + i), rest), df, sum + i);
  }
}

void AddConstant(float value, int n, float* sum) {
  const VF v = hn::Set(df, value);
  for (int i = 0; i < n; i += kLanes) hn::StoreU(hn::Add(hn::LoadU(df, sum + i), v), df, sum + i);
}

const UniformKernels* Kernels() {
  static constexpr UniformKernels kKernels = {
      ChannelRanges,      TokenRanges,      Fit,       QuantizeChannels, QuantizeTokens,
      DequantizeChannels, DequantizeTokens, AddScaled, AddProducts,      AddConstant};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const UniformKernels& GetUniformKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
