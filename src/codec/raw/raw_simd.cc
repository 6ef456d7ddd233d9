#include "codec/raw/raw.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/raw/raw_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant::raw {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR
const CodecVerbs* Verbs() { return &kInfo.reference; }
#else

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;
constexpr DF df;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));

// Accumulators of one pass: heads x vectors, within 16 registers on AVX2.
constexpr int kVectors = kLanes == 16 ? 4 : 2;
constexpr int kHeads = 4;

template <Type kType>
HWY_INLINE VF LoadValues(const uint16_t* HWY_RESTRICT in) {
  if constexpr (kType == Type::kF16) {
    const hn::Rebind<hwy::float16_t, DF> d16;
    return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(in)));
  } else {
    const hn::Rebind<hwy::bfloat16_t, DF> d16;
    return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::bfloat16_t*>(in)));
  }
}

// out[h][i] = (kAdd ? out[h][i] : 0) + sum over n of operand[h][n] * rows[n][i], for kV vectors from `rows` on. Score
// and accumulate are both this: rows are channels of keys, or tokens of values.
template <Type kType, bool kAdd, int kH, int kV>
HWY_INLINE void WeightedSum(const uint16_t* HWY_RESTRICT rows, size_t row_stride, int n,
                            const float* HWY_RESTRICT operand, size_t operand_stride, float* HWY_RESTRICT out,
                            size_t out_stride, ReadAhead* maybe_ahead) {
  VF sum[kH][kV];
  for (int h = 0; h < kH; ++h) {
    for (int v = 0; v < kV; ++v) {
      sum[h][v] = kAdd ? hn::LoadU(df, out + static_cast<size_t>(h) * out_stride + v * kLanes) : hn::Zero(df);
    }
  }
  for (int i = 0; i < n; ++i, rows += row_stride) {
    if (maybe_ahead) maybe_ahead->Prefetch(kV * kLanes / 32);
    VF values[kV];
    for (int v = 0; v < kV; ++v) values[v] = LoadValues<kType>(rows + v * kLanes);
    for (int h = 0; h < kH; ++h) {
      const VF factor = hn::Set(df, operand[static_cast<size_t>(h) * operand_stride + static_cast<size_t>(i)]);
      for (int v = 0; v < kV; ++v) sum[h][v] = hn::MulAdd(factor, values[v], sum[h][v]);
    }
  }
  for (int h = 0; h < kH; ++h) {
    for (int v = 0; v < kV; ++v) hn::StoreU(sum[h][v], df, out + static_cast<size_t>(h) * out_stride + v * kLanes);
  }
}

template <Type kType, bool kAdd, int kH>
HWY_INLINE void WeightedSums(const uint16_t* rows, int width, int n, const float* operand, size_t operand_stride,
                             float* out, size_t out_stride, ReadAhead* maybe_ahead) {
  const size_t row_stride = static_cast<size_t>(width);
  int i = 0;
  for (; i + kVectors * kLanes <= width; i += kVectors * kLanes) {
    WeightedSum<kType, kAdd, kH, kVectors>(rows + i, row_stride, n, operand, operand_stride, out + i, out_stride,
                                           maybe_ahead);
  }
  for (; i < width; i += kLanes) {
    WeightedSum<kType, kAdd, kH, 1>(rows + i, row_stride, n, operand, operand_stride, out + i, out_stride, maybe_ahead);
  }
}

template <Type kType, bool kAdd>
void AllHeads(const uint16_t* rows, int width, int n, int heads, const float* operand, size_t operand_stride,
              float* out, size_t out_stride, ReadAhead* maybe_ahead) {
  int h = 0;
  for (; h + kHeads <= heads; h += kHeads) {
    WeightedSums<kType, kAdd, kHeads>(rows, width, n, operand + static_cast<size_t>(h) * operand_stride, operand_stride,
                                      out + static_cast<size_t>(h) * out_stride, out_stride, maybe_ahead);
  }
  for (; h < heads; ++h) {
    WeightedSums<kType, kAdd, 1>(rows, width, n, operand + static_cast<size_t>(h) * operand_stride, operand_stride,
                                 out + static_cast<size_t>(h) * out_stride, out_stride, maybe_ahead);
  }
}

void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores) {
  const auto& s = static_cast<const State&>(state);
  const auto work = s.type == Type::kF16 ? AllHeads<Type::kF16, false> : AllHeads<Type::kBF16, false>;
  work(reinterpret_cast<const uint16_t*>(block), s.shape.tokens, s.shape.dim, heads,
       reinterpret_cast<const float*>(prepared), static_cast<size_t>(s.shape.dim), scores, kTokensPerPage,
       context.maybe_ahead);
}

void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc) {
  const auto& s = static_cast<const State&>(state);
  const auto work = s.type == Type::kF16 ? AllHeads<Type::kF16, true> : AllHeads<Type::kBF16, true>;
  work(reinterpret_cast<const uint16_t*>(block), s.shape.dim, s.shape.tokens, heads, weights, kTokensPerPage, acc,
       static_cast<size_t>(s.shape.dim), context.maybe_ahead);
}

const CodecVerbs* Verbs() {
  static constexpr CodecVerbs kVerbs = {.score = Score, .accumulate = Accumulate};
  return &kVerbs;
}

#endif  // HWY_SCALAR

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant::raw
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant::raw {

HWY_EXPORT(Verbs);

const CodecVerbs& SimdVerbs() { return *HWY_DYNAMIC_DISPATCH(Verbs)(); }

}  // namespace kvant::raw
#endif  // HWY_ONCE
