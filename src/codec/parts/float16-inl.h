// Vectors of floats to fp16 with round to nearest even on every target. Included once per target.
//
// Where the machine has no conversion instruction (SSE2, EMU128), Highway's DemoteTo truncates, which would
// make encoded bytes depend on the target, and its PromoteTo makes numbers of infinities and NaN, which would
// hide corrupt scales.

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

/// The reverse, exact; infinities and NaN stay what they are.
template <class DF>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<DF> FromF16Words(DF df, const uint16_t* HWY_RESTRICT words) {
  namespace hn = hwy::HWY_NAMESPACE;
#if (HWY_ARCH_X86 && HWY_TARGET < HWY_SSE4 && !defined(HWY_DISABLE_F16C)) || HWY_ARCH_ARM_A64
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(words)));
#else
  const hn::RebindToSigned<DF> di;
  const auto word = hn::PromoteTo(di, hn::LoadU(hn::Rebind<uint16_t, DF>(), words));
  const auto magnitude = hn::And(word, hn::Set(di, 0x7FFF));
  const auto shifted = hn::ShiftLeft<13>(magnitude);
  // The multiplication by 2^112 re-biases the exponent, of subnormal numbers as well.
  const auto finite = hn::BitCast(di, hn::Mul(hn::BitCast(df, shifted), hn::Set(df, 0x1p112f)));
  const auto special = hn::Or(shifted, hn::Set(di, 0x7F800000));
  const auto value = hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x7C00)), finite, special);
  const auto sign = hn::ShiftLeft<16>(hn::And(word, hn::Set(di, 0x8000)));
  return hn::BitCast(df, hn::Or(value, sign));
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#endif  // include guard
