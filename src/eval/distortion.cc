#include "eval/distortion.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <numeric>
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

constexpr size_t kFitRows = 2048;
constexpr uint64_t kFitSeed = 77;
constexpr double kRopeBase = 10000;  // any: normal rows stay normal when they are turned

// What a block needs beside its bytes.
struct Surroundings {
  AlignedBuffer<std::byte> basis;
  std::shared_ptr<const Rope> rope;
  std::vector<int32_t> positions;
  BlockContext context;
};

Result<Surroundings> MakeSurroundings(const Codec& codec) {
  const CodecState& state = *codec.state;
  Surroundings s;
  if (NeedsBasis(state)) {
    s.basis = AlignedBuffer<std::byte>(state.basis_bytes);
    const std::vector<float> rows = NormalValues(kFitRows * static_cast<size_t>(state.shape.dim), kFitSeed);
    KVANT_TRY(codec.info->fit_basis(state, {.rows = rows.data(), .tokens = kFitRows}, s.basis.data()));
    s.context.basis = s.basis.data();
  }
  if (state.keys_before_rope) {
    const auto rope = Rope::Make(RopeShape::OfBase(kRopeBase, state.shape.dim, false), state.shape.dim);
    if (!rope.ok()) return rope.status();
    s.rope = *rope;
    s.positions.resize(static_cast<size_t>(state.shape.tokens));
    std::iota(s.positions.begin(), s.positions.end(), 0);
    s.context.rope = s.rope.get();
    s.context.positions = s.positions.data();
  }
  return s;
}

}  // namespace

Result<Distortion> MeasureDistortion(const Codec& codec, int blocks, uint64_t seed) {
  const size_t block_values = static_cast<size_t>(codec.shape().tokens) * static_cast<size_t>(codec.shape().dim);
  AlignedBuffer<float> rows(block_values), decoded(block_values);
  AlignedBuffer<std::byte> block(codec.block_bytes());
  const std::vector<float> values = NormalValues(block_values * static_cast<size_t>(blocks), seed);
  const Result<Surroundings> surroundings = MakeSurroundings(codec);
  if (!surroundings.ok()) return surroundings.status();
  const BlockContext& context = surroundings->context;
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
