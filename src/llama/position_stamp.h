// Positions of keys in the rows of a saved state.
//
// A codec that keeps keys before RoPE has to know the position of a row that is restored, and libllama, which keeps
// positions itself, hands back rows alone. So a row that is read for a state carries its position in the lowest bits
// of its first 48 values: 24 bits of position and 24 that check them. That moves these values by at most half a unit in
// the last place of fp16, and a row that some other program wrote is recognised as such. A row of zeros, which no turn
// changes, is valid and at position 0.
#pragma once

#include <cstdint>
#include <optional>

#include "base/float16.h"
#include "page/rope.h"

namespace kvant {

constexpr int kStampValues = 48;
static_assert(kMaxPositions == 1 << kStampValues / 2);

/// What stands in the lowest bits: the position, then its product with an odd number.
inline uint64_t StampOf(int32_t position) {
  constexpr uint64_t kOdd = 0x9E3779;
  const auto p = static_cast<uint64_t>(position);
  return p | (p * kOdd % kMaxPositions) << kStampValues / 2;
}

/// row [at least kStampValues]
inline void StampPosition(int32_t position, F16* row) {
  const uint64_t stamp = StampOf(position);
  for (int i = 0; i < kStampValues; ++i) {
    row[i].bits = static_cast<uint16_t>((row[i].bits & ~1u) | (stamp >> i & 1));
  }
}

/// Nothing when the row was not stamped.
inline std::optional<int32_t> StampedPosition(const F16* row) {
  uint64_t stamp = 0;
  for (int i = 0; i < kStampValues; ++i) stamp |= static_cast<uint64_t>(row[i].bits & 1u) << i;
  const auto position = static_cast<int32_t>(stamp % kMaxPositions);
  if (StampOf(position) != stamp) return std::nullopt;
  return position;
}

}  // namespace kvant
