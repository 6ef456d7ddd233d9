#include "kernels/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));
constexpr int kTokens = 64;
constexpr float kLog2E = 1.44269504f;
constexpr float kMinExponent = -126.0f;
constexpr float kRounding = 12582912.0f;  // 1.5 * 2^23: numbers added to it are rounded to integers
constexpr float kHidden = -std::numeric_limits<float>::infinity();

// exp(score - reference) for score - reference <= kLazyRise; 0 below the normal range, for hidden tokens too. Relative
// error 3e-6 (weights are then rounded to 14 bits at most): 2^n times a polynomial of degree 4 for 2^f, |f| <= 0.5, the
// best in relative error.
HWY_INLINE VF ExpOfScore(VF score, VF minus_reference_log2e) {
  const hn::RebindToSigned<DF> di;
  const VF x = hn::MulAdd(score, hn::Set(df, kLog2E), minus_reference_log2e);
  const VF rounded = hn::Add(x, hn::Set(df, kRounding));  // its last bits are n
  const VF f = hn::Sub(x, hn::Sub(rounded, hn::Set(df, kRounding)));
  VF p = hn::MulAdd(f, hn::Set(df, 0.009570102f), hn::Set(df, 0.055917863f));
  p = hn::MulAdd(p, f, hn::Set(df, 0.24024744f));
  p = hn::MulAdd(p, f, hn::Set(df, 0.6931218f));
  p = hn::MulAdd(p, f, hn::Set(df, 0.9999993f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, rounded));
  const VF result = hn::BitCast(df, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenElseZero(hn::Ge(x, hn::Set(df, kMinExponent)), result);
}

// Soft-cap and bias in place; returns the largest scores, one per lane.
HWY_INLINE VF BiasedMax(float* HWY_RESTRICT scores, float softcap, const float* HWY_RESTRICT bias, float slope) {
  VF max = hn::Set(df, kHidden);
  for (int t = 0; t < kTokens; t += kLanes) {
    VF s = hn::LoadU(df, scores + t);
    if (softcap > 0.0f) {
      s = hn::Mul(hn::Set(df, softcap), hn::Tanh(df, hn::Mul(s, hn::Set(df, 1.0f / softcap))));
    }
    if (bias) s = hn::MulAdd(hn::Set(df, slope), hn::LoadU(df, bias + t), s);
    if (softcap > 0.0f || bias) hn::StoreU(s, df, scores + t);
    max = hn::Max(max, s);
  }
  return max;
}

HWY_INLINE float Weights(float* HWY_RESTRICT scores, float reference) {
  VF sum = hn::Zero(df);
  const VF minus = hn::Set(df, -reference * kLog2E);
  for (int t = 0; t < kTokens; t += kLanes) {
    const VF w = ExpOfScore(hn::LoadU(df, scores + t), minus);
    sum = hn::Add(sum, w);
    hn::StoreU(w, df, scores + t);
  }
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

// The new reference of a head whose scores, or whose sum, outgrew the old one. Rare.
HWY_NOINLINE float RaisedReference(VF largest_scores, float reference, float sum) {
  const float largest = hn::GetLane(hn::MaxOfLanes(df, largest_scores));
  return reference == kHidden ? largest : std::max(largest, reference + std::log(sum));
}

bool Page(float* scores, int heads, float softcap, const float* bias, const float* slopes, float* reference, float* sum,
          float* rescale) {
  bool rose = false;
  for (int h = 0; h < heads; ++h) {
    float* head = scores + h * kTokens;
    const VF largest = BiasedMax(head, softcap, bias, slopes ? slopes[h] : 1.0f);
    rescale[h] = 1.0f;
    // Compared lane by lane: a maximum over lanes would make the weights wait for it.
    const bool above = !hn::AllFalse(df, hn::Gt(largest, hn::Set(df, reference[h] + kLazyRise)));
    if (above || sum[h] > kMostSum) {
      const float raised = RaisedReference(largest, reference[h], sum[h]);
      rescale[h] = reference[h] == kHidden ? 0.0f : std::exp(reference[h] - raised);
      sum[h] *= rescale[h];
      reference[h] = raised;
      rose = true;
    }
    if (reference[h] == kHidden) {  // nothing visible yet: all weights are 0
      for (int t = 0; t < kTokens; t += kLanes) hn::StoreU(hn::Zero(df), df, head + t);
    } else {
      sum[h] += Weights(head, reference[h]);
    }
  }
  return rose;
}

void Scale(float* values, size_t n, float factor) {
  const VF f = hn::Set(df, factor);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(hn::Mul(hn::LoadU(df, values + i), f), df, values + i);
  for (; i < n; ++i) values[i] *= factor;
}

void AddScaled(const float* values, size_t n, float factor, float* out) {
  const VF f = hn::Set(df, factor);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::MulAdd(hn::LoadU(df, values + i), f, hn::LoadU(df, out + i)), df, out + i);
  }
  for (; i < n; ++i) out[i] += factor * values[i];
}

const SoftmaxKernels* Kernels() {
  static constexpr SoftmaxKernels kKernels = {Page, Scale, AddScaled};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const SoftmaxKernels& GetSoftmaxKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
