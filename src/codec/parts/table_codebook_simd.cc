#include <algorithm>

#include "codec/parts/table_codebook.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/table_codebook_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

/// Counts thresholds and sums the rises of the levels between them: whole numbers, so both are exact.
template <int kEntries>
void QuantizeTable(const TableCodebook& table, const float* HWY_RESTRICT values, int count, float factor,
                   uint8_t* HWY_RESTRICT codes, float* HWY_RESTRICT units) {
  const D d;
  const hn::RebindToSigned<D> di;
  const hn::Rebind<uint8_t, D> du8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V one = hn::Set(d, 1.0f);
  const V step = hn::Set(d, table.step);
  for (int i = 0; i < count; i += lanes) {
    const V value = hn::Mul(hn::LoadU(d, values + i), hn::Set(d, factor));
    V code = hn::Zero(d);
    V level = hn::Set(d, static_cast<float>(table.levels[0] - TableCodebook::kCenter));
    for (int k = 0; k + 1 < kEntries; ++k) {
      const auto above = hn::Gt(value, hn::Set(d, table.thresholds[k]));
      const V rise = hn::Set(d, static_cast<float>(table.levels[k + 1] - table.levels[k]));
      code = hn::Add(code, hn::IfThenElseZero(above, one));
      level = hn::Add(level, hn::IfThenElseZero(above, rise));
    }
    hn::StoreU(hn::DemoteTo(du8, hn::ConvertTo(di, code)), du8, codes + i);
    hn::StoreU(hn::Mul(level, step), d, units + i);
  }
}

using QuantizeFunction = decltype(TableKernels::quantize);
constexpr QuantizeFunction kQuantize[] = {nullptr, QuantizeTable<2>, QuantizeTable<4>, QuantizeTable<8>,
                                          QuantizeTable<16>};

void Quantize(const TableCodebook& table, const float* values, int count, float factor, uint8_t* codes, float* units) {
  kQuantize[table.bits](table, values, count, factor, codes, units);
}

float Largest(const float* values, int count) {
  const D d;
  V most = hn::Zero(d);
  for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(d))) {
    most = hn::Max(most, hn::Abs(hn::LoadU(d, values + i)));
  }
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

const TableKernels* Kernels() {
  static constexpr TableKernels kKernels = {Quantize, Largest};
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

const TableKernels& GetTableKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif
