#include "codec/parts/reflectors.h"

#include "codec/parts/strip.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/reflectors_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, kStripRows>;
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));

// Reflectors applied in one pass over a strip. Four need one load and one store per value for eight
// multiply-adds.
constexpr int kBlock = 4;

// Consecutive reflectors as floats. They share one pass: their dot products with the untouched rows are
// corrected by the products among themselves.
struct Block {
  int first;                                  // number of the first reflector
  alignas(64) float v[kBlock][kMaxStripDim];  // [dim - first] each, zeros before its 1 and after its end
  float dot[kBlock][kBlock];                  // v_i . v_j
};

void ExpandTail(float scale, const int8_t* HWY_RESTRICT tail, int n, float* HWY_RESTRICT out) {
  const hn::Rebind<int8_t, DF> d8;
  const hn::RebindToSigned<DF> d32;
  const VF factor = hn::Set(df, scale);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VF codes = hn::ConvertTo(df, hn::PromoteTo(d32, hn::LoadU(d8, tail + i)));
    hn::StoreU(hn::Mul(codes, factor), df, out + i);
  }
  for (; i < n; ++i) out[i] = scale * static_cast<float>(tail[i]);
}

float Dot(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int n) {
  VF sum = hn::Zero(df);
  for (int i = 0; i < n; i += kLanes) sum = hn::MulAdd(hn::Load(df, a + i), hn::Load(df, b + i), sum);
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

void ExpandBlock(const ReflectorView& q, int first, Block* block) {
  block->first = first;
  const int n = q.dim - first;
  const int padded = (n + kStripRows - 1) / kStripRows * kStripRows;
  for (int j = 0; j < kBlock; ++j) {
    float* v = block->v[j];
    for (int i = 0; i < padded; i += kLanes) hn::Store(hn::Zero(df), df, v + i);
    const int k = first + j;
    if (k >= q.count) continue;
    v[j] = 1.0f;
    ExpandTail(ToFloat(q.scales[k]), q.tails + ReflectorTailOfs(q.dim, k), n - 1 - j, v + j + 1);
  }
  for (int a = 0; a < kBlock; ++a) {
    for (int b = 0; b <= a; ++b) block->dot[a][b] = block->dot[b][a] = Dot(block->v[a], block->v[b], padded);
  }
}

// Turns dot products with the untouched rows into the step along each reflector, in the order of application.
template <bool kForward>
HWY_INLINE void Steps(const Block& block, VF (&dots)[kBlock]) {
  for (int n = 0; n < kBlock; ++n) {
    const int j = kForward ? n : kBlock - 1 - n;
    for (int m = 0; m < n; ++m) {
      const int before = kForward ? m : kBlock - 1 - m;
      dots[j] = hn::NegMulAdd(hn::Set(df, block.dot[j][before]), dots[before], dots[j]);
    }
    const float norm2 = block.dot[j][j];
    dots[j] = hn::Mul(dots[j], hn::Set(df, norm2 > 0.0f ? 2.0f / norm2 : 0.0f));
  }
}

// Dot products of the rows of one strip, in two sums each: a single one would wait for every addition.
HWY_INLINE void DotsInTwo(const Block& block, int n, const float* HWY_RESTRICT x, VF (&dots)[kBlock]) {
  VF odd[kBlock];
  for (VF& sum : odd) sum = hn::Zero(df);
  int i = 0;
  for (; i + 2 <= n; i += 2) {
    const VF first = hn::LoadU(df, x + i * kStripRows);
    const VF second = hn::LoadU(df, x + (i + 1) * kStripRows);
    for (int j = 0; j < kBlock; ++j) {
      dots[j] = hn::MulAdd(hn::Set(df, block.v[j][i]), first, dots[j]);
      odd[j] = hn::MulAdd(hn::Set(df, block.v[j][i + 1]), second, odd[j]);
    }
  }
  if (i < n) {
    const VF last = hn::LoadU(df, x + i * kStripRows);
    for (int j = 0; j < kBlock; ++j) dots[j] = hn::MulAdd(hn::Set(df, block.v[j][i]), last, dots[j]);
  }
  for (int j = 0; j < kBlock; ++j) dots[j] = hn::Add(dots[j], odd[j]);
}

// Applies a block to one vector of rows in each of kStrips strips, which share the broadcast entries of the
// block.
template <bool kForward, int kStrips>
HWY_INLINE void ApplyLanes(const Block& block, int n, size_t strip_stride, float* HWY_RESTRICT x) {
  VF steps[kStrips][kBlock];
  for (int s = 0; s < kStrips; ++s) {
    for (int j = 0; j < kBlock; ++j) steps[s][j] = hn::Zero(df);
  }
  if constexpr (kStrips == 1) {
    DotsInTwo(block, n, x, steps[0]);
  } else {
    for (int i = 0; i < n; ++i) {
      for (int s = 0; s < kStrips; ++s) {
        const VF value = hn::LoadU(df, x + static_cast<size_t>(s) * strip_stride + i * kStripRows);
        for (int j = 0; j < kBlock; ++j) steps[s][j] = hn::MulAdd(hn::Set(df, block.v[j][i]), value, steps[s][j]);
      }
    }
  }
  for (int s = 0; s < kStrips; ++s) Steps<kForward>(block, steps[s]);
  for (int i = 0; i < n; ++i) {
    for (int s = 0; s < kStrips; ++s) {
      float* at = x + static_cast<size_t>(s) * strip_stride + i * kStripRows;
      VF value = hn::LoadU(df, at);
      for (int j = 0; j < kBlock; ++j) value = hn::NegMulAdd(hn::Set(df, block.v[j][i]), steps[s][j], value);
      hn::StoreU(value, df, at);
    }
  }
}

template <bool kForward>
void ApplyBlock(const Block& block, int dim, int num_strips, float* strips) {
  const int n = dim - block.first;
  const size_t stride = static_cast<size_t>(dim) * kStripRows;
  for (int lane = 0; lane < kStripRows; lane += kLanes) {
    float* x = strips + block.first * kStripRows + lane;
    int s = 0;
    for (; s + 2 <= num_strips; s += 2) ApplyLanes<kForward, 2>(block, n, stride, x + static_cast<size_t>(s) * stride);
    if (s < num_strips) ApplyLanes<kForward, 1>(block, n, stride, x + static_cast<size_t>(s) * stride);
  }
}

void Forward(const ReflectorView& q, int num_strips, float* strips) {
  Block block;
  for (int first = 0; first < q.count; first += kBlock) {
    ExpandBlock(q, first, &block);
    ApplyBlock<true>(block, q.dim, num_strips, strips);
  }
}

void Back(const ReflectorView& q, int num_strips, float* strips) {
  Block block;
  for (int first = (q.count - 1) / kBlock * kBlock; first >= 0; first -= kBlock) {
    ExpandBlock(q, first, &block);
    ApplyBlock<false>(block, q.dim, num_strips, strips);
  }
}

const ReflectorKernels* Kernels() {
  static constexpr ReflectorKernels kKernels = {Forward, Back};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const ReflectorKernels& GetReflectorKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
