// How far a compressed cache moves the model's predictions, position by position.
//
// All sums are in double: near-lossless caches differ from fp16 by 1e-4 nats per position and less.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/interval.h"

namespace kvant {

/// Successive positions that count as one draw of the bootstrap and as one point of the curve over the text. Neighbours
/// share most of what they attend to; a page is as far as that reaches in practice.
constexpr int kDivergenceWindow = 64;

/// Means over the positions scored.
struct DivergenceSummary {
  int64_t positions = 0;
  double kl = 0;             ///< KL(reference || scheme), nats per position
  double kl_stderr = 0;      ///< standard error of `kl`; 0 for a single position
  Interval kl_interval;      ///< 95 %, of `kl`, by drawing windows
  double kl_p99 = 0;         ///< 99th percentile (nearest rank) of the positions' KL
  double top1 = 0;           ///< share of positions whose most probable token is the same, 0..1
  double ppl_reference = 0;  ///< perplexity of the text's own next tokens
  double ppl = 0;
  std::vector<double> kl_by_window;  ///< mean KL of each window, in order of the text
};

/// Index of the largest value, the first one of equals. REQUIRES: !values.empty()
int ArgMax(std::span<const float> values);

/// log(sum(exp(logits))), without overflow. REQUIRES: !logits.empty()
double LogSumExp(std::span<const float> logits);

/// KL(a || b) in nats of two rows of logits, both [vocab_size], whose LogSumExp are lse_a and lse_b; NaN when a logit is.
/// REQUIRES: equal sizes
double Kl(std::span<const float> a, double lse_a, std::span<const float> b, double lse_b);

/// Gathers positions one at a time; keeps one double per position.
class Divergence {
 public:
  /// Logits of one position, both [vocab_size], and the token that really follows.
  /// REQUIRES: equal sizes, 0 <= next_token < vocab_size, finite logits.
  void Add(std::span<const float> reference, std::span<const float> scheme, int next_token);

  /// REQUIRES: at least one position was added.
  DivergenceSummary Summarize() const;

 private:
  std::vector<double> kl_;
  int64_t num_same_top_ = 0;
  double reference_nats_ = 0;  ///< sum of -log p(next_token)
  double scheme_nats_ = 0;
};

}  // namespace kvant
