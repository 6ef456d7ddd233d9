// A codec for tests of the cache: a coarse grid, so that a sealed row can be told from an exact one and
// predicted to the bit, and a basis whose effect shows in every value. Needs no registry.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "codec/codec.h"

namespace kvant::test {

/// decode = origin + kStep * round((row - origin) / kStep), origin = the basis' first value or 0. Coding what
/// was decoded changes nothing. A block is its rows as float, then a "scales" stream of 16 bytes that begins with a bit
/// per token, set for salient ones.
constexpr float kStep = 0.25f;

inline float OnGrid(float value, float origin = 0.0f) {
  return origin + kStep * std::nearbyint((value - origin) / kStep);
}

/// Rows above this are refused, like a scale that does not fit.
constexpr float kGridMax = 1000.0f;

struct GridBasis {
  float origin;  ///< mean of all values fitted to
  float tokens;  ///< rows fitted to
};

inline float Origin(const std::byte* maybe_basis) {
  return maybe_basis == nullptr ? 0.0f : reinterpret_cast<const GridBasis*>(maybe_basis)->origin;
}

/// Before RoPE, where the codec keeps keys so; else as they are.
inline void TurnGridRows(const CodecState& state, const BlockContext& context, bool back, float* rows) {
  if (!state.keys_before_rope) return;
  (back ? TurnRowsBack : TurnRows)(*context.rope, context.positions, state.shape.tokens, rows);
}

inline size_t NumValues(const CodecState& state) { return static_cast<size_t>(state.shape.tokens * state.shape.dim); }

/// The salient tokens that a block was encoded with.
inline uint64_t& GridSalient(const CodecState& state, std::byte* block) {
  return *reinterpret_cast<uint64_t*>(block + state.layout.streams().back().byte_ofs);
}

inline Status GridEncode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  std::memset(block, 0, state.layout.block_bytes());
  auto* out = reinterpret_cast<float*>(block);
  std::memcpy(out, rows, NumValues(state) * sizeof(float));
  TurnGridRows(state, context, /*back=*/true, out);
  for (size_t i = 0; i < NumValues(state); ++i) {
    if (std::abs(out[i]) > kGridMax) return Status::InvalidArgument("grid: value too large");
    out[i] = OnGrid(out[i], Origin(context.basis));
  }
  for (int t = 0; t < state.shape.tokens && context.maybe_token_classes != nullptr; ++t) {
    const bool salient = context.maybe_token_classes[t] == TokenClass::kSalient;
    GridSalient(state, block) |= uint64_t{salient} << t;
  }
  return Status::Ok();
}

inline Status GridDecode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  std::memcpy(rows, block, NumValues(state) * sizeof(float));
  TurnGridRows(state, context, /*back=*/false, rows);
  return Status::Ok();
}

inline Status GridFit(const CodecState& state, const FitData& data, std::byte* basis) {
  double sum = 0;
  const size_t values = data.tokens * static_cast<size_t>(state.shape.dim);
  for (size_t i = 0; i < values; ++i) sum += static_cast<double>(data.rows[i]);
  const GridBasis fitted = {static_cast<float>(sum / static_cast<double>(values)), static_cast<float>(data.tokens)};
  std::memcpy(basis, &fitted, sizeof(fitted));
  return Status::Ok();
}

inline const CodecInfo kGridInfo = {
    .name = "grid",
    .summary = "for tests",
    .paper = "-",
    .options = {},
    .expectations = {},
    .fit_basis = GridFit,
    .reference = {.encode = GridEncode, .decode = GridDecode},
};

struct GridOptions {
  int basis_min_tokens = 0;  ///< 0: no basis
  int basis_refit_tokens = 0;
  bool basis_per_layer = false;
  bool needs_calibration = false;
  bool needs_basis = false;
  bool keys_before_rope = false;
};

inline Codec GridCodec(Side side, int dim, const GridOptions& options = {}) {
  auto state = std::make_shared<CodecState>(BlockShape{.side = side, .dim = dim});
  state->layout.Add("rows", StreamKind::kCodes, sizeof(float) * NumValues(*state));
  state->layout.Add("scales", StreamKind::kScales, 16);
  state->basis_bytes = options.basis_min_tokens > 0 ? sizeof(GridBasis) : 0;
  state->basis_min_tokens = options.basis_min_tokens;
  state->basis_refit_tokens = options.basis_refit_tokens;
  state->basis_per_layer = options.basis_per_layer;
  state->needs_calibration = options.needs_calibration;
  state->needs_basis = options.needs_basis;
  state->keys_before_rope = options.keys_before_rope;
  return {.info = &kGridInfo, .state = std::move(state), .verbs = kGridInfo.reference};
}

}  // namespace kvant::test
