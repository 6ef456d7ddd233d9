#include "codec/parts/table_codebook.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/check.h"

namespace kvant {
namespace {

// x with P(N(0,1) <= x) = p, by bisection: called a few times per process.
double NormalQuantile(double p) {
  double low = -8.0;
  double high = 8.0;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::numbers::sqrt2) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

TableCodebook MakeNormalFloat(int bits) {
  constexpr double kOutermost = 0.9677083;
  const int half = 1 << (bits - 1);
  const double largest = NormalQuantile(kOutermost);
  std::vector<float> values;
  for (int i = 0; i < half - 1; ++i) {  // one value less below zero than above
    const double p = 1.0 - kOutermost + (kOutermost - 0.5) * i / (half - 1);
    values.push_back(static_cast<float>(NormalQuantile(p) / largest));
  }
  for (int i = 0; i <= half; ++i) {
    const double p = 0.5 + (kOutermost - 0.5) * i / half;
    values.push_back(i == 0 ? 0.0f : static_cast<float>(NormalQuantile(p) / largest));
  }
  return MakeTable(values);
}

TableCodebook MakeUniform(int bits) {
  std::vector<float> values;
  const int top = (1 << bits) - 1;
  for (int i = 0; i <= top; ++i) values.push_back(static_cast<float>(2 * i - top) / static_cast<float>(top));
  return MakeTable(values);
}

using Tables = std::array<TableCodebook, 5>;

}  // namespace

TableCodebook MakeTable(std::span<const float> values, std::span<const float> thresholds) {
  KVANT_CHECK(values.size() >= 2 && values.size() <= kMaxTableEntries && std::has_single_bit(values.size()));
  KVANT_CHECK(thresholds.size() + 1 == values.size());
  TableCodebook table{.bits = std::countr_zero(values.size())};
  float largest = 0.0f;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  table.step = largest > 0.0f ? largest / 127.0f : 1.0f;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto level = static_cast<int>(std::nearbyint(values[i] / table.step));
    table.levels[i] = static_cast<uint8_t>(TableCodebook::kCenter + std::clamp(level, -127, 127));
  }
  std::copy(thresholds.begin(), thresholds.end(), table.thresholds);
  return table;
}

TableCodebook MakeTable(std::span<const float> values) {
  constexpr float kNone[kMaxTableEntries - 1] = {};
  TableCodebook table = MakeTable(values, {kNone, values.size() - 1});
  for (int i = 0; i + 1 < table.entries(); ++i) table.thresholds[i] = 0.5f * (table.value(i) + table.value(i + 1));
  return table;
}

const TableCodebook& NormalFloat(int bits) {
  static const Tables kTables = {{{}, {}, MakeNormalFloat(2), MakeNormalFloat(3), MakeNormalFloat(4)}};
  return kTables.at(static_cast<size_t>(bits));
}

const TableCodebook& UniformTable(int bits) {
  static const Tables kTables = {{{}, {}, MakeUniform(2), MakeUniform(3), MakeUniform(4)}};
  return kTables.at(static_cast<size_t>(bits));
}

CodebookSet AsCodebookSet(const TableCodebook& table) {
  CodebookSet set = {};
  set.by_bits[table.bits] = {.bits = table.bits, .step = table.step, .center = TableCodebook::kCenter};
  std::copy_n(table.levels, table.entries(), set.levels.by_bits[table.bits]);
  set.use_levels = true;
  return set;
}

int TableCode(const TableCodebook& table, float value) {
  int code = 0;
  for (int i = 0; i + 1 < table.entries(); ++i) code += value > table.thresholds[i];
  return code;
}

}  // namespace kvant
