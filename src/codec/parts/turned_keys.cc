#include "codec/parts/turned_keys.h"

#include <algorithm>
#include <cmath>

namespace kvant {

void SplitQueries(const Rope& rope, const float* queries, int heads, float* split, float* norm) {
  const int half = rope.dim() / 2;
  for (int h = 0; h < heads; ++h, queries += rope.dim(), split += rope.dim()) {
    norm[h] = 0.0f;
    for (int j = 0; j < half; ++j) {
      const float gain = j < rope.pairs() ? rope.factor() : 1.0f;
      split[j] = gain * queries[rope.pair_order()[2 * j]];
      split[half + j] = gain * queries[rope.pair_order()[2 * j + 1]];
      norm[h] = std::max(norm[h], std::hypot(split[j], split[half + j]));
    }
  }
}

}  // namespace kvant
