#include "codec/parts/sketch_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/sketch_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

/// kRows x (kVecs vectors) of the result stay in registers over the whole list: 4 x 2 sums hide the latency
/// of a fused multiply-add on two ports.
template <size_t kRows, size_t kVecs>
void ProductTile(const ListProduct& p, int row, int column, float* out, size_t out_stride) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  float* const to = out + static_cast<size_t>(row) * out_stride + column;
  V sums[kRows][kVecs];
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kVecs; ++v) sums[r][v] = hn::LoadU(d, to + r * out_stride + v * lanes);
  }
  const float* const rows = p.rows + static_cast<size_t>(row) * p.row_stride;
  for (int i = 0; i < p.list_size; ++i) {
    const float* const entry = p.table + p.list[i] * p.table_stride + column;
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const V factor = hn::Set(d, rows[r * p.row_stride + p.list[i]]);
#pragma GCC unroll 4
      for (size_t v = 0; v < kVecs; ++v) sums[r][v] = hn::MulAdd(factor, hn::LoadU(d, entry + v * lanes), sums[r][v]);
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kVecs; ++v) hn::StoreU(sums[r][v], d, to + r * out_stride + v * lanes);
  }
}

template <size_t kVecs>
void ProductPanel(const ListProduct& p, int column, float* out, size_t out_stride) {
  int row = 0;
  for (; row + 4 <= p.num_rows; row += 4) ProductTile<4, kVecs>(p, row, column, out, out_stride);
  for (; row < p.num_rows; ++row) ProductTile<1, kVecs>(p, row, column, out, out_stride);
}

/// Panels of columns outside, rows inside: a panel of the table stays in the first-level cache for all rows.
void Product(const ListProduct& p, float* out, size_t out_stride) {
  const int lanes = static_cast<int>(hn::Lanes(D()));
  int column = 0;
  for (; column + 2 * lanes <= p.columns; column += 2 * lanes) ProductPanel<2>(p, column, out, out_stride);
  for (; column < p.columns; column += lanes) ProductPanel<1>(p, column, out, out_stride);
}

void SignCodes(const float* values, int count, uint8_t* codes) {
  const D d;
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<uint8_t, D> du8;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < static_cast<size_t>(count); i += lanes) {
    const auto positive = hn::RebindMask(di, hn::Gt(hn::LoadU(d, values + i), hn::Zero(d)));
    hn::StoreU(hn::DemoteTo(du8, hn::IfThenElseZero(positive, hn::Set(di, 1))), du8, codes + i);
  }
}

void CodeSigns(const uint8_t* codes, int count, float* values) {
  const D d;
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<uint8_t, D> du8;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < static_cast<size_t>(count); i += lanes) {
    const auto code = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(du8, codes + i)));
    hn::StoreU(hn::Sub(hn::Add(code, code), hn::Set(d, 1.0f)), d, values + i);
  }
}

const SketchKernels* Kernels() {
  static constexpr SketchKernels kKernels = {Product, SignCodes, CodeSigns};
  return &kKernels;
}

}  // namespace
}  // namespace kvant::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {
namespace {
HWY_EXPORT(Kernels);
}

const SketchKernels& GetSketchKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif
