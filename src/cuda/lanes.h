// Sums and maxima over the lanes of a warp.
#pragma once

#include "cuda/fragment_order.h"

namespace kvant::cuda {

/// Over each kEnd neighbouring lanes; kFirst > 1: over those of them that are alike in the bits below.
template <class W, int kEnd = kLanes, int kFirst = 1>
KVANT_HD inline float SumOfLanes(float x) {
  KVANT_UNROLL
  for (int mask = kFirst; mask < kEnd; mask *= 2) x += W::ShuffleXor(x, mask);
  return x;
}
template <class W, int kEnd = kLanes, int kFirst = 1>
KVANT_HD inline float MaxOfLanes(float x) {
  KVANT_UNROLL
  for (int mask = kFirst; mask < kEnd; mask *= 2) x = W::Max(x, W::ShuffleXor(x, mask));
  return x;
}

}  // namespace kvant::cuda
