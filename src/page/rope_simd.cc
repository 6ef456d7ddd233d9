#include <algorithm>

#include "base/check.h"
#include "page/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "page/rope_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;  // angle rows are padded to 16
using VF = hn::Vec<DF>;
constexpr DF df;

constexpr int kMaxPairs = 128;

// Where the two channels of pair j stand in memory.
template <bool kInterleaved>
HWY_INLINE void LoadPairs(const float* HWY_RESTRICT row, size_t pairs, size_t j, VF& a, VF& b) {
  if constexpr (kInterleaved) {
    hn::LoadInterleaved2(df, row + 2 * j, a, b);
  } else {
    a = hn::LoadU(df, row + j);
    b = hn::LoadU(df, row + pairs + j);
  }
}

template <bool kInterleaved>
HWY_INLINE void StorePairs(VF a, VF b, size_t pairs, size_t j, float* HWY_RESTRICT row) {
  if constexpr (kInterleaved) {
    hn::StoreInterleaved2(a, b, df, row + 2 * j);
  } else {
    hn::StoreU(a, df, row + j);
    hn::StoreU(b, df, row + pairs + j);
  }
}

// Turns one row by (cos, sin), both already times the gain.
template <bool kInterleaved>
void TurnRow(size_t pairs, const float* HWY_RESTRICT cos, const float* HWY_RESTRICT sin, float* HWY_RESTRICT row) {
  size_t j = 0;
  for (; j + hn::Lanes(df) <= pairs; j += hn::Lanes(df)) {
    VF a, b;
    LoadPairs<kInterleaved>(row, pairs, j, a, b);
    const VF c = hn::LoadU(df, cos + j), s = hn::LoadU(df, sin + j);
    StorePairs<kInterleaved>(hn::NegMulAdd(b, s, hn::Mul(a, c)), hn::MulAdd(a, s, hn::Mul(b, c)), pairs, j, row);
  }
  for (; j < pairs; ++j) {
    float& a = row[kInterleaved ? 2 * j : j];
    float& b = row[kInterleaved ? 2 * j + 1 : pairs + j];
    const float turned = a * cos[j] - b * sin[j];
    b = a * sin[j] + b * cos[j];
    a = turned;
  }
}

// cos and sin of angles x + y, times `gain`; the sine also times `direction` (-1: turn back).
void AddAngles(const float* HWY_RESTRICT x, const float* HWY_RESTRICT y, size_t stride, float gain, float direction,
               float* HWY_RESTRICT cos, float* HWY_RESTRICT sin) {
  const VF scale = hn::Set(df, gain), sine_scale = hn::Set(df, gain * direction);
  for (size_t j = 0; j < stride; j += hn::Lanes(df)) {
    const VF xc = hn::LoadU(df, x + j), xs = hn::LoadU(df, x + stride + j);
    const VF yc = hn::LoadU(df, y + j), ys = hn::LoadU(df, y + stride + j);
    hn::StoreU(hn::Mul(hn::NegMulAdd(xs, ys, hn::Mul(xc, yc)), scale), df, cos + j);
    hn::StoreU(hn::Mul(hn::MulAdd(xc, ys, hn::Mul(xs, yc)), sine_scale), df, sin + j);
  }
}

void Turn(const Rope& rope, const int32_t* positions, int count, float gain, float direction, float* rows) {
  const auto pairs = static_cast<size_t>(rope.pairs());
  const auto stride = static_cast<size_t>(rope.angle_stride());
  KVANT_DCHECK(stride <= kMaxPairs);
  alignas(64) float high[2 * kMaxPairs], cos[kMaxPairs], sin[kMaxPairs];  // high: angles of all digits but the lowest
  int32_t high_of = -1;
  for (int t = 0; t < count; ++t, rows += rope.dim()) {
    const int32_t low = positions[t] % kDigitValues;
    if (positions[t] - low != high_of) {
      high_of = positions[t] - low;
      rope.Angles(high_of, high, high + stride);
    }
    AddAngles(high, rope.Digit(0, low), stride, gain, direction, cos, sin);
    rope.shape().interleaved ? TurnRow<true>(pairs, cos, sin, rows) : TurnRow<false>(pairs, cos, sin, rows);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Turn);

void TurnRows(const Rope& rope, const int32_t* positions, int count, float* rows) {
  HWY_DYNAMIC_DISPATCH(Turn)(rope, positions, count, rope.factor(), 1.0f, rows);
}

void TurnRowsBack(const Rope& rope, const int32_t* positions, int count, float* rows) {
  HWY_DYNAMIC_DISPATCH(Turn)(rope, positions, count, 1.0f / rope.factor(), -1.0f, rows);
}

}  // namespace kvant
#endif  // HWY_ONCE
