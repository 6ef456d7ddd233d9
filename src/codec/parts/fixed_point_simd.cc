#include "codec/parts/fixed_point.h"

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

HWY_INLINE float MaxMagnitude(const float* values, const float* maybe_scale, int n) {
  VF max = hn::Zero(df);
  for (int i = 0; i < n; i += kLanes) max = hn::Max(max, hn::Abs(Scaled(values, maybe_scale, i)));
  return hn::GetLane(hn::MaxOfLanes(df, max));
}

// ------------------------------------------------------------------ queries

void QuantizeQuery(const float* queries, size_t stride, int heads, int channels, int planes,
                   const float* channel_scale, int8_t* out, float* unit, int32_t* offset_sum) {
  for (int h = 0; h < heads; ++h) {
    const float* q = queries + static_cast<size_t>(h) * stride;
    const float max = MaxMagnitude(q, channel_scale, channels);
    const VF inverse = hn::Set(df, max > 0.0f ? kQueryMax[planes] / max : 0.0f);
    unit[h] = max / kQueryMax[planes];
    int8_t* column = out + static_cast<size_t>(h) * static_cast<size_t>(planes) * static_cast<size_t>(channels);
    hn::Vec<DI> sum = hn::Zero(di);
    for (int c = 0; c < channels; c += kLanes) {
      const auto v = hn::NearestInt(hn::Mul(Scaled(q, channel_scale, c), inverse));
      sum = hn::Add(sum, v);
      if (planes == 1) {
        hn::StoreU(hn::DemoteTo(d8, v), d8, column + c);
      } else {
        const auto hi = hn::ShiftRight<7>(hn::Add(v, hn::Set(di, 64)));
        hn::StoreU(hn::DemoteTo(d8, hi), d8, column + c);
        hn::StoreU(hn::DemoteTo(d8, hn::Sub(v, hn::ShiftLeft<7>(hi))), d8, column + channels + c);
      }
    }
    offset_sum[h] = hn::GetLane(hn::SumOfLanes(di, sum));
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
    const int32_t offset = level_offset * offset_sum[h];
    const float add = bias ? bias[h] : 0.0f;
    const auto finish = planes == 2 ? FinishColumn<2> : FinishColumn<1>;
    finish(sums + h * planes * 64, first_token, last_token, offset, unit[h], token_scale, add, scores + h * 64);
  }
}

// ------------------------------------------------------------------ weights

void QuantizeWeights(const float* weights, int heads, const float* token_scale, int8_t* out, float* unit,
                     float* sum) {
  for (int h = 0; h < heads; ++h) {
    const float* w = weights + h * 64;
    int8_t* hi_out = out + h * 128;
    const float max = MaxMagnitude(w, token_scale, 64);
    const VF inverse = hn::Set(df, max > 0.0f ? kWeightMax / max : 0.0f);
    unit[h] = max / kWeightMax;
    hn::Vec<DI> total = hn::Zero(di);
    for (int t = 0; t < 64; t += kLanes) {
      const auto v = hn::NearestInt(hn::Mul(Scaled(w, token_scale, t), inverse));
      total = hn::Add(total, v);
      hn::StoreU(hn::DemoteTo(d8, hn::ShiftRight<7>(v)), d8, hi_out + t);
      hn::StoreU(hn::DemoteTo(d8, hn::And(v, hn::Set(di, 127))), d8, hi_out + 64 + t);
    }
    sum[h] = static_cast<float>(hn::GetLane(hn::SumOfLanes(di, total))) * unit[h];
  }
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
