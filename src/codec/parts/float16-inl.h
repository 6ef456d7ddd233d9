// Vectors of floats to fp16 with round to nearest even on every target. Included once per target.
//
// Highway's DemoteTo truncates where the machine has no conversion instruction (SSE2, EMU128), which would
// make encoded bytes depend on the target.

#if defined(KVANT_FLOAT16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVANT_FLOAT16_INL_H_
#undef KVANT_FLOAT16_INL_H_
#else
#define KVANT_FLOAT16_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {

/// fp16 words of `v`, the same as ToF16 of base/float16.h; NaN is not handled.
template <class DF, class V = hwy::HWY_NAMESPACE::Vec<DF>>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<hwy::HWY_NAMESPACE::Rebind<uint16_t, DF>> ToF16Words(DF df, V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<uint16_t, DF> du16;
#if (HWY_ARCH_X86 && HWY_TARGET < HWY_SSE4 && !defined(HWY_DISABLE_F16C)) || HWY_ARCH_ARM_A64
  (void)df;
  return hn::BitCast(du16, hn::DemoteTo(hn::Rebind<hwy::float16_t, DF>(), v));
#else
  const hn::RebindToSigned<DF> di;
  const auto bits = hn::BitCast(di, v);
  const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
  // Normal: round at bit 13 and re-bias the exponent. Subnormal: the addition rounds at the right bit.
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(di, 1));
  const auto rounded = hn::Add(hn::Add(magnitude, hn::Set(di, 0xFFF)), odd);
  const auto normal = hn::ShiftRight<13>(hn::Sub(rounded, hn::Set(di, 0x38000000)));
  const auto shifted = hn::Add(hn::BitCast(df, magnitude), hn::Set(df, 0.5f));
  const auto subnormal = hn::Sub(hn::BitCast(di, shifted), hn::Set(di, 0x3F000000));
  auto word = hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x38800000)), subnormal, normal);
  word = hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x477FF000)), word, hn::Set(di, 0x7C00));
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 0x8000));
  return hn::DemoteTo(du16, hn::Or(word, sign));
#endif
}

/// The reverse, exact.
template <class DF>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<DF> FromF16Words(DF df, const uint16_t* HWY_RESTRICT words) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(words)));
}

}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#endif  // include guard
