#include <algorithm>

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

// Angles of one position after the other, times gain and direction as in AddAngles.
class AngleWalk {
 public:
  AngleWalk(const Rope& rope, float gain, float direction) : rope_(rope), gain_(gain), direction_(direction) {}

  void MoveTo(int32_t position) {
    const auto stride = static_cast<size_t>(rope_.angle_stride());
    const int32_t low = position % kDigitValues;
    if (position - low != high_of_) {
      high_of_ = position - low;
      rope_.Angles(high_of_, high_, high_ + stride);
    }
    AddAngles(high_, rope_.Digit(0, low), stride, gain_, direction_, cos_, sin_);
  }
  const float* cos() const { return cos_; }
  const float* sin() const { return sin_; }

 private:
  const Rope& rope_;
  const float gain_;
  const float direction_;
  int32_t high_of_ = -1;
  alignas(64) float high_[2 * kMaxPairs];  // angles of all digits but the lowest
  alignas(64) float cos_[kMaxPairs];
  alignas(64) float sin_[kMaxPairs];
};

void Turn(const Rope& rope, const int32_t* positions, int count, float gain, float direction, float* rows) {
  const auto pairs = static_cast<size_t>(rope.pairs());
  AngleWalk angles(rope, gain, direction);
  for (int t = 0; t < count; ++t, rows += rope.dim()) {
    angles.MoveTo(positions[t]);
    rope.shape().interleaved ? TurnRow<true>(pairs, angles.cos(), angles.sin(), rows)
                             : TurnRow<false>(pairs, angles.cos(), angles.sin(), rows);
  }
}

void Fix(const float* HWY_RESTRICT values, int count, int16_t* HWY_RESTRICT out) {
  const hn::Rebind<int16_t, DF> dh;
  for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(df))) {
    hn::StoreU(hn::DemoteTo(dh, hn::NearestInt(hn::LoadU(df, values + i))), dh, out + i);
  }
}

void PageAngles(const Rope& rope, const int32_t* positions, int16_t* out) {
  constexpr int16_t kOne = 32767;
  AngleWalk angles(rope, kOne, 1.0f);
  alignas(64) int16_t fixed[2][kMaxPairs];
  for (int t = 0; t < kTokensPerPage; ++t) {
    angles.MoveTo(positions[t]);
    Fix(angles.cos(), rope.angle_stride(), fixed[0]);
    Fix(angles.sin(), rope.angle_stride(), fixed[1]);
    std::fill(fixed[0] + rope.pairs(), fixed[0] + rope.dim() / 2, kOne);
    std::fill(fixed[1] + rope.pairs(), fixed[1] + rope.dim() / 2, int16_t{0});
    for (int quad = 0; quad < rope.dim() / 4; ++quad) {
      hwy::CopyBytes<4>(fixed[0] + 2 * quad, out + PageAngleIndex(4 * quad, t));
      hwy::CopyBytes<4>(fixed[1] + 2 * quad, out + PageAngleIndex(4 * quad + 1, t));
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Turn);
HWY_EXPORT(PageAngles);

void Rope::PageAngles(const int32_t* positions, int16_t* angles) const {
  HWY_DYNAMIC_DISPATCH(PageAngles)(*this, positions, angles);
}

void TurnRows(const Rope& rope, const int32_t* positions, int count, float* rows) {
  HWY_DYNAMIC_DISPATCH(Turn)(rope, positions, count, rope.factor(), 1.0f, rows);
}

void TurnRowsBack(const Rope& rope, const int32_t* positions, int count, float* rows) {
  HWY_DYNAMIC_DISPATCH(Turn)(rope, positions, count, 1.0f / rope.factor(), -1.0f, rows);
}

}  // namespace kvant
#endif  // HWY_ONCE
