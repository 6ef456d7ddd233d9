// The primitives under integer kernels: sums of four products of an unsigned and a signed byte, and of two products of
// signed 16-bit numbers.
//
// The one place that names an instruction: Highway 1.0.3, the packaged one, has no operation for VNNI's, which does
// this in one step (later releases call it SumOfMulQuadAccumulate), and does not switch it on in the compiler for
// AVX3_DL either, although it demands it of the processor. Hence assembler instead of an intrinsic.
#if defined(KVANT_DOT_BYTES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVANT_DOT_BYTES_INL_H_
#undef KVANT_DOT_BYTES_INL_H_
#else
#define KVANT_DOT_BYTES_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {

/// Registers: AVX-512 and NEON have 32, the others 16. Accumulators of one pass leave room for codes and operands.
constexpr int kMaxAccumulators = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM ? 16 : 8;

/// sum[i] + levels[4i] * operand[4i] + ... + levels[4i+3] * operand[4i+3]; exact.
template <class V32, class VU8, class VI8>
HWY_INLINE V32 DotBytes(V32 sum, VU8 levels, VI8 operand) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(levels.raw), "v"(operand.raw));
  return sum;
#else
  const hn::DFromV<V32> d32;
  const hn::RepartitionToNarrow<decltype(d32)> d16;
  const auto levels16 = hn::BitCast(hn::RebindToUnsigned<decltype(d16)>(), levels);
  const auto operand16 = hn::BitCast(d16, operand);
  const auto even = hn::BitCast(d16, hn::And(levels16, hn::Set(hn::DFromV<decltype(levels16)>(), uint16_t{0xFF})));
  const auto odd = hn::BitCast(d16, hn::ShiftRight<8>(levels16));
  const auto operand_even = hn::ShiftRight<8>(hn::ShiftLeft<8>(operand16));
  const auto operand_odd = hn::ShiftRight<8>(operand16);
#if HWY_TARGET <= HWY_SSSE3 && HWY_ARCH_X86
  // On x86 this is one multiply-add of neighbouring pairs and leaves the second sum alone; a test holds it to that.
  auto unused = hn::Zero(d32);
  sum = hn::ReorderWidenMulAccumulate(d32, even, operand_even, sum, unused);
  return hn::ReorderWidenMulAccumulate(d32, odd, operand_odd, sum, unused);
#else
  // 255 * 127 fits 16 bits, so products are taken there and neighbours added after sign extension.
  const auto pairs = [&](auto products) {
    const auto wide = hn::BitCast(d32, products);
    return hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(wide)), hn::ShiftRight<16>(wide));
  };
  return hn::Add(sum, hn::Add(pairs(hn::Mul(even, operand_even)), pairs(hn::Mul(odd, operand_odd))));
#endif
#endif
}

/// sum[i] + a[2i] * b[2i] + a[2i+1] * b[2i+1]; exact as long as it fits.
template <class V32, class V16>
HWY_INLINE V32 DotPairs(V32 sum, V16 a, V16 b) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
  return sum;
#else
  const hn::DFromV<V32> d32;
#if HWY_TARGET <= HWY_SSSE3 && HWY_ARCH_X86
  auto unused = hn::Zero(d32);
  return hn::ReorderWidenMulAccumulate(d32, a, b, sum, unused);
#else
  const auto low = [&](auto v) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(hn::BitCast(d32, v))); };
  const auto high = [&](auto v) { return hn::ShiftRight<16>(hn::BitCast(d32, v)); };
  return hn::Add(sum, hn::Add(hn::Mul(low(a), low(b)), hn::Mul(high(a), high(b))));
#endif
#endif
}

/// Two neighbouring 16-bit numbers over and over: what vectors of pairs meet, as b of DotPairs.
template <class D16>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D16> BroadcastPair(D16 d16, const int16_t* HWY_RESTRICT pair) {
  namespace hn = hwy::HWY_NAMESPACE;
  int32_t word;
  hwy::CopyBytes<4>(pair, &word);
  return hn::BitCast(d16, hn::Set(hn::RepartitionToWide<D16>(), word));
}

}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#endif  // toggle
