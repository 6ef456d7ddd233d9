#include "codec/parts/group_range.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace kvant {
namespace {

/// Mean of term(0) .. term(count - 1).
template <typename Term>
float MeanOf(SumOrder order, int count, const Term& term) {
  return SumInOrder(order, count, term) / static_cast<float>(count);
}

RangeEnds QuantileEnds(float share, float* values, int count) {
  KVANT_DCHECK(share <= kMaxQuantile);
  std::sort(values, values + count);
  const int tail = QuantileTail(share, count);
  return {values[tail], values[count - 1 - tail]};
}

}  // namespace

RangeEnds FindRange(const GroupRange& range, SumOrder order, float* values, int count) {
  if (range.rule == RangeRule::kQuantile) return QuantileEnds(range.amount, values, count);
  if (range.rule == RangeRule::kSpread || range.rule == RangeRule::kSign) {
    const bool about_mean = range.rule == RangeRule::kSpread;
    const float mean = about_mean ? MeanOf(order, count, [&](int i) { return values[i]; }) : 0.0f;
    const float spread = MeanOf(order, count, [&](int i) { return std::abs(values[i] - mean); }) * range.amount;
    return {mean - spread, mean + spread};
  }
  const auto [low, high] = std::minmax_element(values, values + count);
  if (range.rule == RangeRule::kShrunk) return {*low * range.amount, *high * range.amount};
  return {*low, *high};
}

}  // namespace kvant
