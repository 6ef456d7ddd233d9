// Projection matrices of sign sketches: rows of random directions, the same bit for bit on every machine.
#pragma once

#include <cstdint>
#include <memory>

#include "base/aligned_buffer.h"

namespace kvant {

/// How the directions are drawn. Orthogonal ones estimate inner products with 0.36 times the variance of
/// Gaussian ones (pi/2 - 1 against pi/2) once there are `dim` of them.
enum class SketchKind : uint8_t {
  kOrthogonal,  ///< Gaussian rows, orthogonalised in chunks of `dim` rows, each of length sqrt(dim)
  kGaussian,    ///< independent N(0, 1)
};

/// A matrix S [rows, dim], stored both ways because keys meet it by channel and decoded rows by direction.
struct Sketch {
  int dim = 0;
  int rows = 0;
  AlignedBuffer<float> by_row;      ///< [rows, dim]
  AlignedBuffer<float> by_channel;  ///< [dim, rows]

  const float* channel(int c) const { return by_channel.data() + static_cast<size_t>(c) * static_cast<size_t>(rows); }
  const float* row(int r) const { return by_row.data() + static_cast<size_t>(r) * static_cast<size_t>(dim); }
};

/// The seed of the matrices that blocks are encoded with: part of the format.
constexpr uint64_t kSketchSeed = 0x514A4C;

/// Draws S. Part of the format, in this order:
/// 1. SplitMix64 (split_mix.h) from `seed`; two outputs a, b give u = 2 * (a >> 11) / 2^53 - 1 and v alike.
/// 2. Marsaglia's polar method: s = u^2 + v^2, drawn again unless 0 < s < 1; f = sqrt(-2 ln(s) / s) gives the
///    normals u f and v f. They fill S row by row. All in double with +, -, *, /, sqrt only (the logarithm is a
///    series), so no mathematical library decides a bit.
/// 3. kOrthogonal: modified Gram-Schmidt from the top in every chunk of `dim` rows (the last may be shorter), then
///    times sqrt(dim). Signs of rows do not matter to a sketch, so they stay as they fall.
/// 4. Rounded to float. A matrix with fewer rows is the top of one with more.
/// REQUIRES: rows > 0, 0 < dim <= 256.
Sketch MakeSketch(int dim, int rows, uint64_t seed, SketchKind kind = SketchKind::kOrthogonal);

/// MakeSketch; callers that hold the same one at the same time share it. Thread-safe.
std::shared_ptr<const Sketch> SharedSketch(int dim, int rows, SketchKind kind = SketchKind::kOrthogonal,
                                           uint64_t seed = kSketchSeed);

/// sqrt(pi / 2) / rows: what turns norm times sum of signed projections into an inner product,
///   q . k = scale |k| sum_i (s_i . q) sign(s_i . k)   without bias over the choice of S.
constexpr float EstimatorScale(int rows) { return 1.2533141373155003f / static_cast<float>(rows); }

}  // namespace kvant
