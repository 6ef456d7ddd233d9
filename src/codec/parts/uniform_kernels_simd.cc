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

// ------------------------------------------------------------------ encode

// Ranges of kV vectors of channels at once: the chains of min and max of one vector alone would wait for each other.
template <int kV>
HWY_INLINE void RangesOfVectors(const float* HWY_RESTRICT rows, int dim, int tokens, float* HWY_RESTRICT min,
                                float* HWY_RESTRICT max) {
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
    hn::StoreU(low[v], df, min + v * kLanes);
    hn::StoreU(high[v], df, max + v * kLanes);
  }
}

void ChannelRanges(const float* rows, int dim, int tokens, float* min, float* max) {
  constexpr int kVectors = 4;
  int c = 0;
  for (; c + kVectors * kLanes <= dim; c += kVectors * kLanes) {
    RangesOfVectors<kVectors>(rows + c, dim, tokens, min + c, max + c);
  }
  for (; c < dim; c += kLanes) RangesOfVectors<1>(rows + c, dim, tokens, min + c, max + c);
}

void TokenRanges(const float* rows, int dim, int group, float* min, float* max) {
  for (int t = 0; t < kTokens; ++t, rows += dim) {
    for (int c = 0; c < dim; c += group) {
      VF low = hn::LoadU(df, rows + c);
      VF high = low;
      for (int i = kLanes; i < group; i += kLanes) {
        const VF x = hn::LoadU(df, rows + c + i);
        low = hn::Min(low, x);
        high = hn::Max(high, x);
      }
      min[c / group * kTokens + t] = hn::GetLane(hn::MinOfLanes(df, low));
      max[c / group * kTokens + t] = hn::GetLane(hn::MaxOfLanes(df, high));
    }
  }
}

// Rounds to fp16, stores the words and returns what they mean.
HWY_INLINE VF StoreF16(VF v, uint16_t* HWY_RESTRICT words) {
  hn::StoreU(ToF16Words(df, v), hn::Rebind<uint16_t, DF>(), words);
  return FromF16Words(df, words);
}

void Fit(float* min, float* max, int n, int top, uint16_t* scales, uint16_t* mins) {
  const VF zero = hn::Zero(df);
  const VF levels = hn::Set(df, static_cast<float>(top));
  for (int i = 0; i < n; i += kLanes) {
    const VF low = StoreF16(hn::Add(hn::LoadU(df, min + i), zero), mins + i);  // the sum turns -0 into +0
    const VF range = hn::Max(hn::Sub(hn::LoadU(df, max + i), low), zero);
    const VF scale = StoreF16(hn::Add(hn::Div(range, levels), zero), scales + i);
    const VF inverse = hn::Div(hn::Set(df, 1.0f), scale);
    hn::StoreU(low, df, min + i);
    hn::StoreU(hn::IfThenElseZero(hn::Gt(scale, zero), inverse), df, max + i);
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
