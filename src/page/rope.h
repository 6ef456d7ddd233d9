// Rotary position embedding of keys, and its inverse: for codecs that keep keys as they were before it.
//
// With a, b the channels of pair j and t = position * frequency[j], keys are turned by
//   a' = m (a cos t - b sin t),  b' = m (a sin t + b cos t),  m = attention_factor.
// Su et al., "RoFormer", arXiv:2104.09864.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kvant/shape.h"
#include "kvant/status.h"
#include "page/block_layout.h"

namespace kvant {

/// Positions are 0..kMaxPositions-1: four digits of 6 bits each, see Rope::Digit.
constexpr int kPositionDigits = 4;
constexpr int kDigitValues = 64;
constexpr int32_t kMaxPositions = 1 << 24;
/// Of a head, the angle stride included.
constexpr int kMaxPairs = 128;

/// Four coded channels (two pairs, in pair order) and 64 tokens: kernels take them together.
constexpr int kQuadValues = 4 * kTokensPerPage;
constexpr int PageAngleValues(int dim) { return dim / 4 * kQuadValues; }
/// Angles are int16 [dim / 4][2][64 tokens][2]: cosines of the quad's two pairs, then sines, in units of 1 / 32767. The
/// cosine of a pair stands at the index of its even channel, the sine at that of the odd one.
constexpr int PageAngleIndex(int channel, int token) {
  return channel / 4 * kQuadValues + channel % 2 * (kQuadValues / 2) + 2 * token + channel / 2 % 2;
}

/// A RopeShape with its tables, for heads of one size. Immutable; 144 KiB at head size 128, shared by layers.
class Rope {
 public:
  /// Errors: InvalidArgument (no frequencies, more of them than pairs, a number that is not finite).
  static Result<std::shared_ptr<const Rope>> Make(const RopeShape& shape, int dim);

  const RopeShape& shape() const { return shape_; }
  int dim() const { return dim_; }
  int pairs() const { return static_cast<int>(shape_.frequencies.size()); }
  float factor() const { return shape_.attention_factor; }

  /// Pair order: 2j and 2j + 1 are the channels of pair j, then come the channels that are not turned.
  /// [dim]: the channel at each place.
  const int16_t* pair_order() const { return pair_order_.data(); }

  /// Stride in floats of a row of angles: pairs() rounded up, so that vectors may read past the end.
  int angle_stride() const { return angle_stride_; }
  /// cos [angle_stride] then sin [angle_stride] of the angles of `value` * 64^`digit`, value in 0..63. The angle of a
  /// position is the sum of those of its digits.
  const float* Digit(int digit, int value) const {
    return digits_.data() + static_cast<size_t>((digit * kDigitValues + value) * 2 * angle_stride_);
  }
  /// cos [angle_stride] and sin [angle_stride] of a position. REQUIRES: 0 <= position < kMaxPositions
  void Angles(int32_t position, float* cos, float* sin) const;

  /// Angles of a page in 16 bits, for integer kernels; the layout is that of PageAngleIndex.
  /// positions [64] -> angles [PageAngleValues(dim)]
  void PageAngles(const int32_t* positions, int16_t* angles) const;
  /// The same for positions 0..63, made once.
  const int16_t* first_page_angles() const { return first_page_angles_.data(); }

 private:
  Rope(const RopeShape& shape, int dim);

  RopeShape shape_;
  int dim_;
  int angle_stride_;
  std::vector<int16_t> pair_order_;
  std::vector<int16_t> first_page_angles_;
  std::vector<float> digits_;  ///< [kPositionDigits][kDigitValues][cos, sin][angle_stride]
};

/// Each position is one more than that before it: then the angles of a page differ from those of 0, 1, 2, ... by one
/// turn.
bool AreConsecutive(const int32_t* positions, int count);

/// Turns rows [count, dim] at positions [count] in place: to what the model scores with.
void TurnRows(const Rope& rope, const int32_t* positions, int count, float* rows);
/// The inverse: to what they were before.
void TurnRowsBack(const Rope& rope, const int32_t* positions, int count, float* rows);

}  // namespace kvant
