// RoPE and positions for tests of codecs that keep keys before RoPE.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.h"
#include "codec/codec.h"
#include "page/rope.h"

namespace kvant {

constexpr int32_t kFirstTestPosition = 1000;

enum class TestPositions { kConsecutive, kScattered };

/// What keys of a test were turned by; golden blocks are made with consecutive positions.
class TestRope {
 public:
  explicit TestRope(int dim, TestPositions kind = TestPositions::kConsecutive,
                    const RopeShape& shape = RopeShape::OfBase(10000, 0, false)) {
    const Result<std::shared_ptr<const Rope>> rope =
        Rope::Make(shape.frequencies.empty() ? RopeShape::OfBase(10000, dim, false) : shape, dim);
    KVANT_CHECK(rope.ok());
    rope_ = *rope;
    for (int t = 0; t < kTokensPerPage; ++t) {
      positions_.push_back(kFirstTestPosition + (kind == TestPositions::kScattered ? t * 37 % 64 * 53 : t));
    }
  }

  const Rope& rope() const { return *rope_; }
  const int32_t* positions() const { return positions_.data(); }

  /// `basis` and, where the codec asks for them, RoPE and positions.
  BlockContext Context(const CodecState& state, const std::byte* basis) const {
    if (!state.keys_before_rope) return {.basis = basis};
    return {.basis = basis, .positions = positions_.data(), .rope = rope_.get()};
  }

 private:
  std::shared_ptr<const Rope> rope_;
  std::vector<int32_t> positions_;
};

/// Rows [count, dim] as a basis is fitted to them: keys that are kept before RoPE are turned back, from consecutive
/// positions.
inline void TurnFitRows(const CodecState& state, int count, float* rows) {
  if (!state.keys_before_rope) return;
  const TestRope rope(state.shape.dim);
  std::vector<int32_t> positions;
  for (int t = 0; t < count; ++t) positions.push_back(kFirstTestPosition + t);
  TurnRowsBack(rope.rope(), positions.data(), count, rows);
}

}  // namespace kvant
