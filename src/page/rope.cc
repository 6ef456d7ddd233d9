#include "page/rope.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace kvant {
namespace {

constexpr int kAngleGranule = 16;  // floats of the widest vector

}  // namespace

RopeShape RopeShape::OfBase(double base, int dim, bool interleaved) {
  RopeShape shape = {.frequencies = {}, .interleaved = interleaved};
  for (int j = 0; j < dim / 2; ++j) shape.frequencies.push_back(std::pow(base, -2.0 * j / dim));
  return shape;
}

Result<std::shared_ptr<const Rope>> Rope::Make(const RopeShape& shape, int dim) {
  const size_t pairs = shape.frequencies.size();
  if (pairs == 0 || 2 * pairs > static_cast<size_t>(dim) || pairs > kMaxPairs) {
    return Status::InvalidArgument(
        StrFormat("RoPE has %zu frequencies; accepted for a head of %d: 1..%d", pairs, dim, dim / 2));
  }
  const bool finite = std::ranges::all_of(shape.frequencies, [](double f) { return std::isfinite(f); });
  if (!finite || !(shape.attention_factor > 0.0f) || !std::isfinite(shape.attention_factor)) {
    return Status::InvalidArgument(
        StrFormat("RoPE with attention factor %g has a frequency or factor that is not finite or not positive",
                  static_cast<double>(shape.attention_factor)));
  }
  return std::shared_ptr<const Rope>(new Rope(shape, dim));
}

Rope::Rope(const RopeShape& shape, int dim)
    : shape_(shape),
      dim_(dim),
      angle_stride_((pairs() + kAngleGranule - 1) / kAngleGranule * kAngleGranule),
      pair_order_(static_cast<size_t>(dim)),
      digits_(static_cast<size_t>(kPositionDigits * kDigitValues * 2 * angle_stride_)) {
  const int turned = 2 * pairs();
  for (int i = 0; i < dim; ++i) {
    const bool split = !shape.interleaved && i < turned;
    pair_order_[static_cast<size_t>(i)] = static_cast<int16_t>(split ? i / 2 + i % 2 * pairs() : i);
  }
  double weight = 1.0;
  for (int digit = 0; digit < kPositionDigits; ++digit, weight *= kDigitValues) {
    for (int value = 0; value < kDigitValues; ++value) {
      auto* cos = const_cast<float*>(Digit(digit, value));
      for (int j = 0; j < pairs(); ++j) {
        const double angle = value * weight * shape.frequencies[static_cast<size_t>(j)];
        cos[j] = static_cast<float>(std::cos(angle));
        cos[angle_stride_ + j] = static_cast<float>(std::sin(angle));
      }
    }
  }
  int32_t positions[kTokensPerPage];
  std::iota(positions, positions + kTokensPerPage, 0);
  first_page_angles_.resize(static_cast<size_t>(PageAngleValues(dim)));
  PageAngles(positions, first_page_angles_.data());
}

void Rope::Angles(int32_t position, float* cos, float* sin) const {
  KVANT_DCHECK(position >= 0 && position < kMaxPositions);
  const float* lowest = Digit(0, position % kDigitValues);
  std::copy_n(lowest, angle_stride_, cos);
  std::copy_n(lowest + angle_stride_, angle_stride_, sin);
  for (int digit = 1, rest = position / kDigitValues; rest != 0; ++digit, rest /= kDigitValues) {
    const float* c = Digit(digit, rest % kDigitValues);
    const float* s = c + angle_stride_;
    for (int j = 0; j < angle_stride_; ++j) {
      const float turned = cos[j] * c[j] - sin[j] * s[j];
      sin[j] = cos[j] * s[j] + sin[j] * c[j];
      cos[j] = turned;
    }
  }
}

bool AreConsecutive(const int32_t* positions, int count) {
  for (int t = 1; t < count; ++t) {
    if (positions[t] != positions[0] + t) return false;
  }
  return true;
}

}  // namespace kvant
