#include "codec/parts/fixed_point.h"

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
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;
using VU = hn::Vec<DU>;
constexpr DF df;
constexpr DI di;
constexpr DU du;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));

HWY_INLINE VF Scaled(const float* HWY_RESTRICT values, const float* HWY_RESTRICT maybe_scale, int i) {
  const VF v = hn::LoadU(df, values + i);
  return maybe_scale ? hn::Mul(v, hn::LoadU(df, maybe_scale + i)) : v;
}

// Largest |values[i] * scale[i]|; `scaled` keeps the products.
HWY_INLINE float ScaleAndFindMax(const float* HWY_RESTRICT values, int n, const float* HWY_RESTRICT maybe_scale,
                                 float* HWY_RESTRICT scaled) {
  VF most = hn::Zero(df);
  for (int i = 0; i < n; i += kLanes) {
    const VF v = Scaled(values, maybe_scale, i);
    most = hn::Max(most, hn::Abs(v));
    hn::Store(v, df, scaled + i);
  }
  return hn::GetLane(hn::MaxOfLanes(df, most));
}

// Numbers below 2^22 rounded to integers: added to 1.5 * 2^23, they are the last bits of the sum.
class Rounded {
 public:
  explicit HWY_INLINE Rounded(VF value) : sum_(hn::Add(value, hn::Set(df, kOffset))) {}
  HWY_INLINE VF value() const { return hn::Sub(sum_, hn::Set(df, kOffset)); }
  /// The last 22 bits are the integer's.
  HWY_INLINE VU bits() const { return hn::BitCast(du, sum_); }

 private:
  static constexpr float kOffset = 12582912.0f;
  VF sum_;
};

// The last byte of every lane. Highway 1.0.3 gets this wrong on AVX3_DL, where it permutes words instead of bytes.
HWY_INLINE void StoreBytes(VU words, int8_t* HWY_RESTRICT out) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(words.raw));
#else
  const hn::Rebind<uint8_t, DF> d8;
  hn::StoreU(hn::TruncateTo(d8, words), d8, reinterpret_cast<uint8_t*>(out));
#endif
}

HWY_INLINE float InverseUnit(float max, float steps) { return max > kLeastOperand ? steps / max : 0.0f; }

constexpr int kMaxChannels = 1024;  // of a query: the longest sketch

// ------------------------------------------------------------------ queries

// kPlanes: v in +-127, or v = hi * 128 + lo with lo in -64..63. Returns the sum of all v, which is exact.
template <int kPlanes>
HWY_INLINE float QuantizeColumn(const float* HWY_RESTRICT scaled, int channels, float inverse,
                                int8_t* HWY_RESTRICT column) {
  const VF factor = hn::Set(df, inverse);
  VF sum = hn::Zero(df);
  for (int c = 0; c < channels; c += kLanes) {
    const Rounded v(hn::Mul(hn::Load(df, scaled + c), factor));
    sum = hn::Add(sum, v.value());
    if constexpr (kPlanes == 1) {
      StoreBytes(v.bits(), column + c);
    } else {
      const VU up = hn::Add(v.bits(), hn::Set(du, 64));
      StoreBytes(hn::ShiftRight<7>(up), column + c);
      StoreBytes(hn::Sub(hn::And(up, hn::Set(du, 127)), hn::Set(du, 64)), column + channels + c);
    }
  }
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

template <int kPlanes>
HWY_INLINE void QuantizeColumns(const float* HWY_RESTRICT queries, size_t stride, int heads, int channels,
                                const float* HWY_RESTRICT channel_scale, int8_t* HWY_RESTRICT out,
                                float* HWY_RESTRICT unit, int32_t* HWY_RESTRICT offset_sum) {
  alignas(64) float scaled[kMaxChannels];
  for (int h = 0; h < heads; ++h) {
    const float max = ScaleAndFindMax(queries + static_cast<size_t>(h) * stride, channels, channel_scale, scaled);
    unit[h] = max * (1.0f / kQueryMax[kPlanes]);
    const float sum =
        QuantizeColumn<kPlanes>(scaled, channels, InverseUnit(max, kQueryMax[kPlanes]), out + h * kPlanes * channels);
    if (offset_sum) offset_sum[h] = static_cast<int32_t>(sum);
  }
}

void QuantizeQuery(const float* queries, size_t stride, int heads, int channels, int planes, const float* channel_scale,
                   int8_t* out, float* unit, int32_t* offset_sum) {
  KVANT_DCHECK(channels <= kMaxChannels);
  const auto quantize = planes == 1 ? QuantizeColumns<1> : QuantizeColumns<2>;
  quantize(queries, stride, heads, channels, channel_scale, out, unit, offset_sum);
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

// kPlanes: v in 0..127, or v = hi * 128 + lo with both of them there. Returns the sum of all v, which is exact.
template <int kPlanes>
HWY_INLINE float QuantizeWeightColumn(const float* HWY_RESTRICT scaled, float inverse, int8_t* HWY_RESTRICT out) {
  const VF factor = hn::Set(df, inverse);
  VF sum = hn::Zero(df);
  for (int t = 0; t < 64; t += kLanes) {
    const Rounded v(hn::Mul(hn::Load(df, scaled + t), factor));
    sum = hn::Add(sum, v.value());
    if constexpr (kPlanes == 1) {
      StoreBytes(v.bits(), out + t);
    } else {
      StoreBytes(hn::ShiftRight<7>(v.bits()), out + t);
      StoreBytes(hn::And(v.bits(), hn::Set(du, 127)), out + 64 + t);
    }
  }
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

HWY_INLINE float Largest(const float* HWY_RESTRICT values, int n) {
  VF most = hn::Zero(df);
  for (int i = 0; i < n; i += kLanes) most = hn::Max(most, hn::LoadU(df, values + i));
  return hn::GetLane(hn::MaxOfLanes(df, most));
}

// The heads do not wait for each other: no value of one passes through memory together with another's.
template <int kPlanes>
HWY_INLINE void QuantizeWeightColumns(const float* HWY_RESTRICT weights, int heads,
                                      const float* HWY_RESTRICT token_scale, int8_t* HWY_RESTRICT out,
                                      float* HWY_RESTRICT unit, float* HWY_RESTRICT sum) {
  constexpr float kStep = kPlanes == 1 ? 128.0f : 1.0f;
  constexpr float kMost = kPlanes == 1 ? 127.0f : static_cast<float>(kWeightMax);
  alignas(64) float scaled[64];
  for (int h = 0; h < heads; ++h) {
    const float max = ScaleAndFindMax(weights + h * 64, 64, token_scale, scaled);
    const float total = QuantizeWeightColumn<kPlanes>(scaled, InverseUnit(max, kMost), out + h * 128);
    const float step = max * (1.0f / kMost);
    if (sum) sum[h] = total * step;
    unit[h] = step / kStep;
  }
}

int QuantizeWeights(const float* weights, int heads, const float* token_scale, float one_plane_below, int8_t* out,
                    float* unit, float* sum) {
  if (Largest(weights, heads * 64) < one_plane_below) {
    QuantizeWeightColumns<1>(weights, heads, token_scale, out, unit, sum);
    return 1;
  }
  QuantizeWeightColumns<2>(weights, heads, token_scale, out, unit, sum);
  return 2;
}

// ------------------------------------------------------------------ floats

float Dot(const float* a, const float* b, int n) {
  VF sum = hn::Zero(df);
  for (int i = 0; i < n; i += kLanes) sum = hn::MulAdd(hn::LoadU(df, a + i), hn::LoadU(df, b + i), sum);
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

void Dots(const float* rows, int count, const float* b, int n, float* out) {
  for (int r = 0; r < count; ++r, rows += n) out[r] = Dot(rows, b, n);
}

void FromF16(const uint16_t* in, int count, float* out) {
  for (int i = 0; i < count; i += kLanes) hn::StoreU(FromF16Words(df, in + i), df, out + i);
}

void ToF16(const float* in, int count, uint16_t* out) {
  const hn::Rebind<uint16_t, DF> d16;
  for (int i = 0; i < count; i += kLanes) hn::StoreU(ToF16Words(df, hn::LoadU(df, in + i)), d16, out + i);
}

const FixedPointKernels* Kernels() {
  static constexpr FixedPointKernels kKernels = {QuantizeQuery, FinishScores, QuantizeWeights, Dot, Dots,
                                                 FromF16,       ToF16};
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
