// The rows that golden blocks are made from, the same to the bit as tools/dev/golden/rows.py makes them.
#pragma once

#include <cmath>
#include <cstdint>

namespace kvant {

/// Fills rows [64, dim] with roughly normal values that every codec finds hard somewhere:
/// - x = (sum of four 21-bit draws - 2^22) / 2^20, in -4..4, token by token; the draws are state >> 43 after
///   each step of a 64-bit linear congruential generator (Knuth's MMIX constants) that starts at the seed;
/// - channel c is multiplied by 2^(7c mod 5 - 2), so no two neighbours look alike;
/// - channel 7 is 1.25 in tokens 0..31 and token 40 is zero, so some groups are constant.
/// Every step is exact in float32. REQUIRES: dim >= 8
inline void GoldenRows(uint64_t seed, int dim, float* rows) {
  uint64_t state = seed;
  const auto draw = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int32_t>(state >> 43);
  };
  for (int t = 0; t < 64; ++t) {
    for (int c = 0; c < dim; ++c) {
      const int32_t sum = draw() + draw() + draw() + draw() - (1 << 22);
      float value = std::ldexp(static_cast<float>(sum), 7 * c % 5 - 2 - 20);
      if (c == 7 && t < 32) value = 1.25f;
      if (t == 40) value = 0.0f;
      rows[t * dim + c] = value;
    }
  }
}

}  // namespace kvant
