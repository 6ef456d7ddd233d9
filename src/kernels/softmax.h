// The only attention softmax of the project: online, one page at a time, partial states merge in any order.
#pragma once

#include <cstddef>

namespace kvant {

/// A head's weights are exp(score - reference). The reference is the first page's largest score; it rises when a score
/// exceeds it by more than kLazyRise, or the sum of weights kMostSum: then to the larger of that score and the logarithm
/// of the sum. So weights are, up to a factor of kMostSum, shares of what the head has seen; they never exceed e^kLazyRise,
/// far below the range of fp32 sums, and what was accumulated is seldom rescaled.
constexpr float kLazyRise = 4.0f;
constexpr float kMostSum = 4.0f;

struct SoftmaxKernels {
  /// Turns scores [heads, 64] of one page into weights exp(score - reference[h]) in place and adds them to sum[h].
  /// scores = softcap * tanh(scores / softcap) first when softcap > 0, then + bias [64] (null: none) times slope[h]
  /// (null: 1); a bias of -inf hides a token. Returns true when some reference[h] rose; rescale[h] is then the factor for
  /// what head h accumulated before (sum is already rescaled), 1 for heads that stayed. Start with reference = -inf,
  /// sum = 0; the factor of the first rise is 0.
  bool (*page)(float* scores, int heads, float softcap, const float* bias, const float* slopes, float* reference,
               float* sum, float* rescale);
  /// values[i] *= factor, i < n.
  void (*scale)(float* values, size_t n, float factor);
  /// out[i] += factor * values[i], i < n.
  void (*add_scaled)(const float* values, size_t n, float factor, float* out);
};

const SoftmaxKernels& GetSoftmaxKernels();

}  // namespace kvant
