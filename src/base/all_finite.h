// Whether numbers can be computed with.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

namespace kvant {

/// No value is an infinity or not a number.
inline bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

}  // namespace kvant
