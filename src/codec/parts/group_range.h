// Where the codes of a group lie: the values that the lowest and the highest code stand for. The codes between are
// spread evenly, values outside get the nearest end.
//
// With b bits and enough values the extremes are good ends. With one bit they are the worst there are: on a normal
// group of 32 their squared error is 1.96 times the group's power, that of mean -+ mean distance is 0.34.
#pragma once

#include <cstdint>

namespace kvant {

enum class RangeRule : uint8_t {
  kExtremes,  ///< least and greatest value
  kShrunk,    ///< the extremes times `amount`: CalibQuant's
  kQuantile,  ///< as many values beyond each end as `amount`, a share of the group, says
  kSpread,    ///< mean -+ `amount` * mean distance from the mean
  kSign,      ///< -+ `amount` * mean magnitude; the ends tell each other, so the block keeps no mins
};

struct GroupRange {
  RangeRule rule = RangeRule::kExtremes;
  float amount = 1.0f;
};

struct RangeEnds {
  float low;
  float high;
};

/// Values beyond each end of a kQuantile range, of `count` values: 0 and fewer than half of them.
constexpr int QuantileTail(float share, int count) {
  return static_cast<int>(share * static_cast<float>(count - 1) + 0.5f);
}
/// The largest share that kQuantile takes, and the tail that goes with it in the largest group it serves.
constexpr float kMaxQuantile = 0.45f;
constexpr int kMaxQuantileTail = QuantileTail(kMaxQuantile, 64);

/// How a sum over a group is ordered; it decides bytes. Over tokens: one after the other. Over channels: channel j of
/// the group goes to sum j mod 16, and the sixteen are then added in halves, i + (i + 8), i + (i + 4), ...
enum class SumOrder : uint8_t { kSequential, kInSixteens };

/// Adds sixteen partial sums in halves; `sums` is overwritten.
inline float AddSixteen(float* sums) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

/// Sum of term(0) .. term(count - 1).
template <typename Term>
float SumInOrder(SumOrder order, int count, const Term& term) {
  float sums[16] = {};
  const int lanes = order == SumOrder::kSequential ? 1 : 16;
  for (int i = 0; i < count; ++i) sums[i % lanes] += term(i);
  return AddSixteen(sums);
}

/// The definition, for values [count] of one group; kQuantile reorders them.
RangeEnds FindRange(const GroupRange& range, SumOrder order, float* values, int count);

}  // namespace kvant
