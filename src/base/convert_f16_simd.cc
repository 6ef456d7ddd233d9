#include <algorithm>

#include "base/convert_f16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "base/convert_f16_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

void Convert(const float* in, size_t n, F16* out) {
  size_t i = 0;
// Elsewhere Highway emulates the conversion and rounds in its own way.
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2) || HWY_ARCH_ARM_A64
  const hn::CappedTag<float, 16> df;
  const hn::Rebind<hwy::float16_t, decltype(df)> d16;
  const auto max = hn::Set(df, kF16Max);
  for (; i + hn::Lanes(df) <= n; i += hn::Lanes(df)) {
    const auto clamped = hn::Max(hn::Min(hn::LoadU(df, in + i), max), hn::Neg(max));
    hn::StoreU(hn::DemoteTo(d16, clamped), d16, reinterpret_cast<hwy::float16_t*>(out + i));
  }
#endif
  for (; i < n; ++i) out[i] = ToF16(std::clamp(in[i], -kF16Max, kF16Max));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Convert);

void FloatsToF16(const float* in, size_t n, F16* out) { HWY_DYNAMIC_DISPATCH(Convert)(in, n, out); }

}  // namespace kvant
#endif  // HWY_ONCE
