#include "codec/parts/fixed_point.h"

#include <algorithm>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/fixed_point_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After highway.h.
#include "codec/parts/float16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR
const FixedPointKernels* Kernels() { return &ReferenceFixedPointKernels(); }
#else

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;  // 64 tokens and multiples of 16 channels divide evenly
using DI = hn::RebindToSigned<DF>;
using D8 = hn::Rebind<int8_t, DF>;
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr DI di;
constexpr D8 d8;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));

constexpr float kQueryMax[3] = {0.0f, 127.0f, 127.0f * 128.0f};
constexpr float kWeightMax = 127.0f * 128.0f + 127.0f;

HWY_INLINE VF Scaled(const float* HWY_RESTRICT values, const float* HWY_RESTRICT maybe_scale, int i) {
  const VF v = hn::LoadU(df, values + i);
  return maybe_scale ? hn::Mul(v, hn::LoadU(df, maybe_scale + i)) : v;
}

// max[h] = largest |values[h][i] * scale[i]|; `scaled` keeps the products, [heads][n].
HWY_INLINE void ScaleAndFindMax(const float* HWY_RESTRICT values, size_t stride, int heads, int n,
                                const float* HWY_RESTRICT maybe_scale, float* HWY_RESTRICT scaled,
                                float* HWY_RESTRICT max) {
  for (int h = 0; h < heads; ++h, values += stride, scaled += n) {
    VF most = hn::Zero(df);
    for (int i = 0; i < n; i += kLanes) {
      const VF v = Scaled(values, maybe_scale, i);
      most = hn::Max(most, hn::Abs(v));
      hn::Store(v, df, scaled + i);
    }
    max[h] = hn::GetLane(hn::MaxOfLanes(df, most));
  }
}

// unit[h] = max[h] / steps and inverse[h] = steps / max[h] (0 for 0), all heads at once: divisions are slow.
HWY_INLINE void UnitsOf(const float* HWY_RESTRICT max, int heads, float steps, float* HWY_RESTRICT unit,
                        float* HWY_RESTRICT inverse) {
  for (int h = 0; h < heads; h += kLanes) {
    const VF m = hn::Load(df, max + h);
    const VF zero = hn::Zero(df);
    hn::Store(hn::IfThenElse(hn::Gt(m, zero), hn::Div(hn::Set(df, steps), m), zero), df, inverse + h);
    hn::Store(hn::Mul(m, hn::Set(df, 1.0f / steps)), df, unit + h);
  }
}

constexpr int kMaxChannels = 1024;  // of a query: the longest sketch

// ------------------------------------------------------------------ queries

template <int kPlanes>
HWY_INLINE int32_t QuantizeColumn(const float* HWY_RESTRICT scaled, int channels, float inverse,
                                  int8_t* HWY_RESTRICT column) {
  const VF factor = hn::Set(df, inverse);
  hn::Vec<DI> sum = hn::Zero(di);
  for (int c = 0; c < channels; c += kLanes) {
    const auto v = hn::NearestInt(hn::Mul(hn::Load(df, scaled + c), factor));
    sum = hn::Add(sum, v);
    if constexpr (kPlanes == 1) {
      hn::StoreU(hn::DemoteTo(d8, v), d8, column + c);
    } else {
      const auto hi = hn::ShiftRight<7>(hn::Add(v, hn::Set(di, 64)));
      hn::StoreU(hn::DemoteTo(d8, hi), d8, column + c);
      hn::StoreU(hn::DemoteTo(d8, hn::Sub(v, hn::ShiftLeft<7>(hi))), d8, column + channels + c);
    }
  }
  return hn::GetLane(hn::SumOfLanes(di, sum));
}

void QuantizeQuery(const float* queries, size_t stride, int heads, int channels, int planes, const float* channel_scale,
                   int8_t* out, float* unit, int32_t* offset_sum) {
  KVANT_DCHECK(channels <= kMaxChannels);
  alignas(64) float max[16] = {}, units[16], inverse[16];
  alignas(64) float scaled[4 * kMaxChannels];
  for (int first = 0; first < heads; first += 4) {  // what four heads need stays in the nearest cache
    const int count = std::min(4, heads - first);
    ScaleAndFindMax(queries + static_cast<size_t>(first) * stride, stride, count, channels, channel_scale, scaled, max);
    UnitsOf(max, count, kQueryMax[planes], units, inverse);
    for (int h = 0; h < count; ++h) {
      int8_t* column = out + static_cast<size_t>((first + h) * planes) * static_cast<size_t>(channels);
      const auto quantize = planes == 1 ? QuantizeColumn<1> : QuantizeColumn<2>;
      const int32_t sum = quantize(scaled + h * channels, channels, inverse[h], column);
      if (offset_sum) offset_sum[first + h] = sum;
      unit[first + h] = units[h];
    }
  }
}

template <int kPlanes>
HWY_INLINE void FinishColumn(const int32_t* HWY_RESTRICT column, int first_token, int last_token, int32_t offset,
                             float unit, const float* HWY_RESTRICT token_scale, float bias,
                             float* HWY_RESTRICT scores) {
  const auto minus = hn::Set(di, offset);
  const VF scale = hn::Set(df, unit);
  const VF add = hn::Set(df, bias);
  for (int t = first_token; t < last_token; t += kLanes) {
    auto sum = hn::LoadU(di, column + t);
    if constexpr (kPlanes == 2) sum = hn::Add(hn::ShiftLeft<7>(sum), hn::LoadU(di, column + 64 + t));
    VF score = hn::Mul(hn::ConvertTo(df, hn::Sub(sum, minus)), scale);
    if (token_scale) score = hn::Mul(score, hn::LoadU(df, token_scale + t));
    hn::StoreU(hn::Add(score, add), df, scores + t);
  }
}

void FinishScores(const int32_t* sums, int heads, int planes, int first_token, int last_token, const float* unit,
                  const int32_t* offset_sum, int level_offset, const float* token_scale, const float* bias,
                  float* scores) {
  for (int h = 0; h < heads; ++h) {
    const int32_t offset = level_offset ? level_offset * offset_sum[h] : 0;
    const float add = bias ? bias[h] : 0.0f;
    const auto finish = planes == 2 ? FinishColumn<2> : FinishColumn<1>;
    finish(sums + h * planes * 64, first_token, last_token, offset, unit[h], token_scale, add, scores + h * 64);
  }
}

// ------------------------------------------------------------------ weights

template <int kPlanes>
HWY_INLINE int32_t QuantizeWeightColumn(const float* HWY_RESTRICT scaled, float inverse, int8_t* HWY_RESTRICT out) {
  const VF factor = hn::Set(df, inverse);
  hn::Vec<DI> total = hn::Zero(di);
  for (int t = 0; t < 64; t += kLanes) {
    const auto v = hn::NearestInt(hn::Mul(hn::Load(df, scaled + t), factor));
    total = hn::Add(total, v);
    if constexpr (kPlanes == 1) {
      hn::StoreU(hn::DemoteTo(d8, v), d8, out + t);
    } else {
      hn::StoreU(hn::DemoteTo(d8, hn::ShiftRight<7>(v)), d8, out + t);
      hn::StoreU(hn::DemoteTo(d8, hn::And(v, hn::Set(di, 127))), d8, out + 64 + t);
    }
  }
  return hn::GetLane(hn::SumOfLanes(di, total));
}

HWY_INLINE float Largest(const float* HWY_RESTRICT values, int n) {
  VF most = hn::Zero(df);
  for (int i = 0; i < n; i += kLanes) most = hn::Max(most, hn::LoadU(df, values + i));
  return hn::GetLane(hn::MaxOfLanes(df, most));
}

int QuantizeWeights(const float* weights, int heads, const float* token_scale, int8_t* out, float* unit, float* sum) {
  alignas(64) float max[kMaxHeads] = {}, units[kMaxHeads], inverse[kMaxHeads];
  alignas(64) float scaled[kMaxHeads * 64];
  const int planes = Largest(weights, heads * 64) < kOnePlaneWeight ? 1 : 2;
  const float step = planes == 1 ? 128.0f : 1.0f;
  ScaleAndFindMax(weights, 64, heads, 64, token_scale, scaled, max);
  UnitsOf(max, heads, planes == 1 ? 127.0f : kWeightMax, units, inverse);
  for (int h = 0; h < heads; ++h) {
    const auto quantize = planes == 1 ? QuantizeWeightColumn<1> : QuantizeWeightColumn<2>;
    const int32_t total = quantize(scaled + h * 64, inverse[h], out + h * 128);
    if (sum) sum[h] = static_cast<float>(total) * units[h];
    unit[h] = units[h] / step;
  }
  return planes;
}

// ------------------------------------------------------------------ floats

float Dot(const float* a, const float* b, int n) {
  VF sum = hn::Zero(df);
  for (int i = 0; i < n; i += kLanes) sum = hn::MulAdd(hn::LoadU(df, a + i), hn::LoadU(df, b + i), sum);
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

void FromF16(const uint16_t* in, int count, float* out) {
  for (int i = 0; i < count; i += kLanes) hn::StoreU(FromF16Words(df, in + i), df, out + i);
}

void ToF16(const float* in, int count, uint16_t* out) {
  const hn::Rebind<uint16_t, DF> d16;
  for (int i = 0; i < count; i += kLanes) hn::StoreU(ToF16Words(df, hn::LoadU(df, in + i)), d16, out + i);
}

const FixedPointKernels* Kernels() {
  static constexpr FixedPointKernels kKernels = {QuantizeQuery, FinishScores, QuantizeWeights, Dot, FromF16, ToF16};
  return &kKernels;
}

#endif  // HWY_SCALAR

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const FixedPointKernels& GetFixedPointKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
