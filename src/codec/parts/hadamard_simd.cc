#include "codec/parts/hadamard.h"

#include <array>
#include <bit>
#include <cmath>

#include "codec/parts/strip.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/hadamard_simd.cc"
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

void Scale(int first, int n, float norm, float* HWY_RESTRICT strip) {
  for (int i = 0; i < n; ++i) {
    const VF factor = hn::Set(df, HadamardSign(first + i) * norm);
    for (int lane = 0; lane < kStripRows; lane += kLanes) {
      float* value = strip + i * kStripRows + lane;
      hn::StoreU(hn::Mul(hn::LoadU(df, value), factor), df, value);
    }
  }
}

HWY_INLINE void Butterfly(VF& a, VF& b) {
  const VF sum = hn::Add(a, b);
  b = hn::Sub(a, b);
  a = sum;
}

void Radix2(int n, int stride, float* HWY_RESTRICT strip) {
  for (int base = 0; base < n * kStripRows; base += 2 * stride) {
    for (int i = base; i < base + stride; i += kLanes) {
      VF a = hn::LoadU(df, strip + i);
      VF b = hn::LoadU(df, strip + i + stride);
      Butterfly(a, b);
      hn::StoreU(a, df, strip + i);
      hn::StoreU(b, df, strip + i + stride);
    }
  }
}

// Two stages in one pass over memory: the same sums in the same order as two passes of Radix2.
void Radix4(int n, int stride, float* HWY_RESTRICT strip) {
  for (int base = 0; base < n * kStripRows; base += 4 * stride) {
    for (int i = base; i < base + stride; i += kLanes) {
      VF a = hn::LoadU(df, strip + i);
      VF b = hn::LoadU(df, strip + i + stride);
      VF c = hn::LoadU(df, strip + i + 2 * stride);
      VF d = hn::LoadU(df, strip + i + 3 * stride);
      Butterfly(a, b);
      Butterfly(c, d);
      Butterfly(a, c);
      Butterfly(b, d);
      hn::StoreU(a, df, strip + i);
      hn::StoreU(b, df, strip + i + stride);
      hn::StoreU(c, df, strip + i + 2 * stride);
      hn::StoreU(d, df, strip + i + 3 * stride);
    }
  }
}

void Butterflies(int n, float* strip) {
  int stride = 1;
  for (; stride * 4 <= n; stride *= 4) Radix4(n, stride * kStripRows, strip);
  if (stride < n) Radix2(n, stride * kStripRows, strip);
}

void Forward(int dim, float* strip) {
  const int p = static_cast<int>(std::bit_floor(static_cast<unsigned>(dim)));
  const float norm = 1.0f / std::sqrt(static_cast<float>(p));
  float* second = strip + (dim - p) * kStripRows;
  Scale(0, p, norm, strip);
  Scale(p, dim - p, 1.0f, strip + p * kStripRows);
  Butterflies(p, strip);
  if (p == dim) return;
  Scale(dim, dim - p, 1.0f, strip);
  Scale(2 * dim - p, p, norm, second);
  Butterflies(p, second);
}

void Inverse(int dim, float* strip) {
  const int p = static_cast<int>(std::bit_floor(static_cast<unsigned>(dim)));
  const float norm = 1.0f / std::sqrt(static_cast<float>(p));
  float* second = strip + (dim - p) * kStripRows;
  if (p != dim) {
    Butterflies(p, second);
    Scale(2 * dim - p, p, norm, second);
    Scale(dim, dim - p, 1.0f, strip);
  }
  Butterflies(p, strip);
  Scale(0, p, norm, strip);
  Scale(p, dim - p, 1.0f, strip + p * kStripRows);
}

// ------------------------------------------------------------------ rows

// HadamardSign(i), for both transforms of the largest dim.
alignas(64) constexpr auto kSigns = [] {
  std::array<float, 2 * kMaxStripDim> signs{};
  for (int i = 0; i < 2 * kMaxStripDim; ++i) signs[static_cast<size_t>(i)] = HadamardSign(i);
  return signs;
}();

void ScaleRow(int first, int count, float factor, float* HWY_RESTRICT row) {
  const VF f = hn::Set(df, factor);
  for (int i = 0; i < count; i += kLanes) {
    const VF sign = hn::LoadU(df, kSigns.data() + first + i);
    hn::StoreU(hn::Mul(hn::LoadU(df, row + i), hn::Mul(sign, f)), df, row + i);
  }
}

// Butterflies of lanes kStride apart: the lower gets a + b, the upper a - b.
template <int kStride>
HWY_INLINE VF ButterflyLanes(VF v) {
  if constexpr (kStride >= kLanes) {
    return v;
  } else {
    alignas(64) constexpr auto kPartner = [] {
      std::array<int32_t, kLanes> lanes{};
      for (int i = 0; i < kLanes; ++i) lanes[static_cast<size_t>(i)] = i ^ kStride;
      return lanes;
    }();
    alignas(64) constexpr auto kSign = [] {
      std::array<float, kLanes> signs{};
      for (int i = 0; i < kLanes; ++i) signs[static_cast<size_t>(i)] = (i & kStride) != 0 ? -1.0f : 1.0f;
      return signs;
    }();
    const VF partner = hn::TableLookupLanes(v, hn::SetTableIndices(df, kPartner.data()));
    return hn::MulAdd(v, hn::Load(df, kSign.data()), partner);  // the product is exact
  }
}

void ButterflyRow(int n, float* HWY_RESTRICT row) {
  for (int i = 0; i < n; i += kLanes) {
    const VF v = ButterflyLanes<2>(ButterflyLanes<1>(hn::LoadU(df, row + i)));
    hn::StoreU(ButterflyLanes<8>(ButterflyLanes<4>(v)), df, row + i);
  }
  for (int stride = kLanes; stride < n; stride *= 2) {
    for (int base = 0; base < n; base += 2 * stride) {
      for (int i = base; i < base + stride; i += kLanes) {
        VF a = hn::LoadU(df, row + i);
        VF b = hn::LoadU(df, row + i + stride);
        Butterfly(a, b);
        hn::StoreU(a, df, row + i);
        hn::StoreU(b, df, row + i + stride);
      }
    }
  }
}

void ForwardRows(int dim, int count, float* rows) {
  const int p = static_cast<int>(std::bit_floor(static_cast<unsigned>(dim)));
  const float norm = 1.0f / std::sqrt(static_cast<float>(p));
  for (int r = 0; r < count; ++r, rows += dim) {
    ScaleRow(0, p, norm, rows);
    ScaleRow(p, dim - p, 1.0f, rows + p);
    ButterflyRow(p, rows);
    if (p == dim) continue;
    ScaleRow(dim, dim - p, 1.0f, rows);
    ScaleRow(2 * dim - p, p, norm, rows + dim - p);
    ButterflyRow(p, rows + dim - p);
  }
}

void InverseRows(int dim, int count, float* rows) {
  const int p = static_cast<int>(std::bit_floor(static_cast<unsigned>(dim)));
  const float norm = 1.0f / std::sqrt(static_cast<float>(p));
  for (int r = 0; r < count; ++r, rows += dim) {
    if (p != dim) {
      ButterflyRow(p, rows + dim - p);
      ScaleRow(2 * dim - p, p, norm, rows + dim - p);
      ScaleRow(dim, dim - p, 1.0f, rows);
    }
    ButterflyRow(p, rows);
    ScaleRow(0, p, norm, rows);
    ScaleRow(p, dim - p, 1.0f, rows + p);
  }
}

const HadamardKernels* Kernels() {
  static constexpr HadamardKernels kKernels = {Forward, Inverse, ForwardRows, InverseRows};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const HadamardKernels& GetHadamardKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
