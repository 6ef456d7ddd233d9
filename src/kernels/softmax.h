// The only attention softmax of the project: online, one page at a time, partial states merge in any order.
#pragma once

#include <cstddef>

namespace kvant {

/// Largest rise of a head's maximum that is left in place: weights then reach e^kLazyRise instead of 1, and what was
/// accumulated need not be rescaled. Far below the range of fp32 sums.
constexpr float kLazyRise = 4.0f;

struct SoftmaxKernels {
  /// Turns scores [heads, 64] of one page into weights exp(score - max[h]) in place and adds them to sum[h].
  /// scores = softcap * tanh(scores / softcap) first when softcap > 0, then + bias [64] (null: none) times slope[h]
  /// (null: 1); a bias of -inf hides a token. Returns true when some max[h] rose; rescale[h] is then the factor for
  /// what head h accumulated before (sum is already rescaled), 1 for heads that stayed. Start with max = -inf,
  /// sum = 0; the factor of the first rise is 0.
  bool (*page)(float* scores, int heads, float softcap, const float* bias, const float* slopes, float* max, float* sum,
               float* rescale);
  /// values[i] *= factor, i < n.
  void (*scale)(float* values, size_t n, float factor);
  /// out[i] += factor * values[i], i < n.
  void (*add_scaled)(const float* values, size_t n, float factor, float* out);
};

const SoftmaxKernels& GetSoftmaxKernels();

}  // namespace kvant
