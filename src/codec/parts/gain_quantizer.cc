#include "codec/parts/gain_quantizer.h"

#include <algorithm>
#include <cmath>

namespace kvant {
namespace {

float Inverse(float gain) { return gain > kLeastRowGain ? 1.0f / gain : 0.0f; }

template <typename Visit>
void ForEachCoded(const GainQuantizer& q, Visit visit) {
  for (int c = 0; c < q.num_tiles * kTileChannels; ++c) {
    if (const int bits = q.bits[c / kTileChannels]; bits > 0) visit(c, bits);
  }
}

float ScaleOfUnitCodes(ScaleRule rule, float energy, float dot, float norm) {
  switch (rule) {
    case ScaleRule::kUnbiased:
      return energy / dot;
    case ScaleRule::kNorm:
      return 1.0f;
    case ScaleRule::kSameNorm:
      return std::sqrt(energy / norm);
    default:
      return dot / norm;
  }
}

void QuantizeAbsMax(const GainQuantizer& q, const float* row, uint8_t* codes, float* scale) {
  const float largest = static_cast<float>((1 << (q.bits[0] - 1)) - 1);
  float max = 0.0f;
  ForEachCoded(q, [&](int c, int) { max = std::max(max, std::abs(row[c])); });
  *scale = max / largest;
  const float inverse = Inverse(*scale);
  ForEachCoded(q, [&](int c, int bits) {
    codes[c] = static_cast<uint8_t>(static_cast<int>(std::nearbyint(row[c] * inverse)) + (1 << (bits - 1)));
  });
}

}  // namespace

float RowGain(const GainQuantizer& q, const float* row) {
  float energy = 0.0f;
  int count = 0;
  ForEachCoded(q, [&](int c, int) {
    energy += row[c] * row[c];
    ++count;
  });
  return count > 0 ? std::sqrt(energy / static_cast<float>(count)) : 0.0f;
}

void QuantizeRow(const GainQuantizer& q, const float* row, uint8_t* codes, float* scale) {
  std::fill_n(codes, q.num_tiles * kTileChannels, uint8_t{0});
  if (q.rule == ScaleRule::kAbsMax) return QuantizeAbsMax(q, row, codes, scale);
  const float gain = RowGain(q, row);
  const float inverse = Inverse(gain);
  float energy = 0.0f;
  float dot = 0.0f;
  float norm = 0.0f;
  ForEachCoded(q, [&](int c, int bits) {
    const float value = row[c] * inverse;
    codes[c] = static_cast<uint8_t>(NearestCode(q.books->by_bits[bits], value));
    const float code_value = CodeValue(*q.books, bits, codes[c]);
    const float weight = q.maybe_weights ? q.maybe_weights[c] : 1.0f;
    energy += weight * value * value;
    dot += weight * value * code_value;
    norm += weight * code_value * code_value;
  });
  *scale = dot > 0.0f ? gain * ScaleOfUnitCodes(q.rule, energy, dot, norm) : 0.0f;
}

}  // namespace kvant
