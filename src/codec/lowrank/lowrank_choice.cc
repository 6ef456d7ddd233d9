// What both implementations share: the choice of factors and scales of a page, and what is stored of it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "codec/lowrank/lowrank.h"
#include "codec/parts/page_scalars.h"

namespace kvant::lowrank {

void LoadDirection(const State& state, const Factors& factors, int j, float* out) {
  const int8_t* direction = factors.directions + j * state.shape.dim;
  for (int c = 0; c < state.shape.dim; ++c) out[c] = factors.steps[j] * static_cast<float>(direction[c]);
}

void LoadDigitTable(const State& state, const Factors& factors, float* out) {
  const int dim = state.shape.dim;
  for (int j = 0; j < state.rank; ++j) {
    LoadDirection(state, factors, j, out);
    for (int k = 1; k < state.digits; ++k) {
      const auto weight = static_cast<float>(1 << (k * state.digit_bits));
      for (int c = 0; c < dim; ++c) out[k * dim + c] = out[c] * weight;
    }
    out += state.digits * dim;
  }
}

uint8_t FactorCode(const State& state, float coordinate) {
  const int half = 1 << (state.factor_bits - 1);
  const float code = std::floor(std::clamp(coordinate, static_cast<float>(-half), static_cast<float>(half - 1)));
  return static_cast<uint8_t>(static_cast<int>(code) + half);
}

Status FitScales(const State& state, const float* largest, PageChoice* choice) {
  const int count = state.num_groups() * kTokensPerPage;
  const auto [min, max] = std::minmax_element(largest, largest + count);
  choice->scale_params[0] = ToF16(*min);
  const float low = ToFloat(choice->scale_params[0]);
  choice->scale_params[1] = ToF16(std::max(*max - low, 0.0f) / 255.0f);
  const float step = ToFloat(choice->scale_params[1]);
  if (!std::isfinite(low) || !std::isfinite(step)) {
    return Status::InvalidArgument(StrFormat("lowrank: scale %g does not fit fp16", static_cast<double>(*max)));
  }
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  for (int i = 0; i < count; ++i) {
    const float code = std::nearbyint(std::clamp((largest[i] - low) * inverse, 0.0f, 255.0f));
    choice->scale_codes[i] = static_cast<uint8_t>(code);
  }
  return Status::Ok();
}

Result<PageChoice> ChoosePage(const State& state, const Factors& factors, const float* rows, RefineFunction refine) {
  float largest[kMaxGroups * kTokensPerPage];
  PageChoice next;
  refine(state, factors, rows, nullptr, next.factors, largest);
  KVANT_TRY(FitScales(state, largest, &next));
  if (!factors.present()) return next;
  PageChoice best = next;
  double best_error = std::numeric_limits<double>::infinity();
  for (int round = 0; round < state.rounds; ++round) {
    const PageChoice now = next;
    const double error = refine(state, factors, rows, &now, next.factors, largest);
    if (error >= best_error) return best;
    best = now;
    best_error = error;
    KVANT_TRY(FitScales(state, largest, &next));
  }
  if (state.rounds == 0) return best;
  uint8_t unused[sizeof(next.factors)];
  return refine(state, factors, rows, &next, unused, largest) < best_error ? next : best;
}

void StoreChoice(const State& state, const PageChoice& choice, std::byte* block) {
  const size_t count = static_cast<size_t>(state.num_groups() * kTokensPerPage);
  std::memcpy(block + state.scale_codes_ofs, choice.scale_codes, count);
  std::memcpy(block + state.scale_params_ofs, choice.scale_params, sizeof(choice.scale_params));
  if (state.rank == 0) return;
  uint8_t digits[kTokensPerPage * kTileChannels];
  const int mask = (1 << state.digit_bits) - 1;
  for (int t = 0; t < kTokensPerPage; ++t) {
    for (int i = 0; i < kTileChannels; ++i) {
      const int factor = choice.factors[t * state.rank + i / state.digits];
      digits[t * kTileChannels + i] = static_cast<uint8_t>(factor >> (i % state.digits * state.digit_bits) & mask);
    }
  }
  PackTile(state.order(), state.digit_bits, digits, kTileChannels, block + state.factors_ofs);
}

Status CheckBlock(const State& state, const std::byte* block) {
  const auto* params = reinterpret_cast<const F16*>(block + state.scale_params_ofs);
  for (int i = 0; i < 2; ++i) {
    const float value = ToFloat(params[i]);
    if (std::isfinite(value) && !std::signbit(value)) continue;
    return Status::Corruption(StrFormat("lowrank: %s is not valid", i == 0 ? "smallest scale" : "step of scales"));
  }
  return Status::Ok();
}

void LoadScales(const State& state, const std::byte* block, int group, float* scales) {
  const auto* params = reinterpret_cast<const F16*>(block + state.scale_params_ofs);
  const auto* codes = reinterpret_cast<const uint8_t*>(block + state.scale_codes_ofs) + group * kTokensPerPage;
  const float low = ToFloat(params[0]);
  const float step = ToFloat(params[1]);
  for (int t = 0; t < kTokensPerPage; ++t) scales[t] = low + static_cast<float>(codes[t]) * step;
}

}  // namespace kvant::lowrank
