#include "eval/distortion.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <span>

#include "base/aligned_buffer.h"

namespace kvant {

// Box-Muller; std::normal_distribution differs between standard libraries.
std::vector<float> NormalValues(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
  std::vector<float> values;
  values.reserve(count);
  while (values.size() < count) {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    values.push_back(static_cast<float>(radius * std::cos(2 * std::numbers::pi * uniform())));
  }
  return values;
}

namespace {

constexpr size_t kCalibrationRows = 2048;

/// Fits what a calibration would, to rows like those to be measured; nothing for codecs that need none.
Status Calibrate(const Codec& codec, uint64_t seed, AlignedBuffer<std::byte>* basis) {
  if (!codec.state->needs_calibration) return Status::Ok();
  const std::vector<float> rows = NormalValues(kCalibrationRows * static_cast<size_t>(codec.shape().dim), seed);
  *basis = AlignedBuffer<std::byte>(codec.state->basis_bytes);
  return codec.info->fit_basis(*codec.state, {.rows = rows.data(), .tokens = kCalibrationRows}, basis->data());
}

}  // namespace

Result<Distortion> MeasureDistortion(const Codec& codec, int blocks, uint64_t seed) {
  AlignedBuffer<std::byte> basis;
  KVANT_TRY(Calibrate(codec, seed + 1, &basis));
  const BlockContext context = {.basis = basis.data()};
  const size_t block_values = static_cast<size_t>(codec.shape().tokens) * static_cast<size_t>(codec.shape().dim);
  AlignedBuffer<float> rows(block_values), decoded(block_values);
  AlignedBuffer<std::byte> block(codec.block_bytes());
  const std::vector<float> values = NormalValues(block_values * static_cast<size_t>(blocks), seed);
  double error = 0, power = 0;
  for (size_t start = 0; start < values.size(); start += block_values) {
    std::copy_n(values.begin() + static_cast<ptrdiff_t>(start), block_values, rows.data());
    KVANT_TRY(codec.verbs.encode(*codec.state, context, rows.data(), block.data()));
    KVANT_TRY(codec.verbs.decode(*codec.state, context, block.data(), decoded.data()));
    for (size_t i = 0; i < block_values; ++i) {
      const double difference = static_cast<double>(decoded.data()[i]) - static_cast<double>(rows.data()[i]);
      error += difference * difference;
      power += static_cast<double>(rows.data()[i]) * static_cast<double>(rows.data()[i]);
    }
  }
  return Distortion{
      .bits_per_value = 8.0 * static_cast<double>(codec.block_bytes()) / static_cast<double>(block_values),
      .relative_error = std::sqrt(error / power)};
}

}  // namespace kvant
