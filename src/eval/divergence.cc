#include "eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace kvant {
namespace {

double StandardError(const std::vector<double>& values, double mean) {
  const double n = static_cast<double>(values.size());
  if (values.size() < 2) return 0;
  double squares = 0;
  for (double v : values) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / (n - 1) / n);
}

double Percentile(std::vector<double> values, double share) {
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const auto nth = values.begin() + static_cast<ptrdiff_t>(std::max(rank, 1.0)) - 1;
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

}  // namespace

int ArgMax(std::span<const float> values) {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

double LogSumExp(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x) - max);
  return max + std::log(sum);
}

// sum_i p_i log(p_i / q_i) with log p_i = a_i - lse_a. The two normalisers leave the sum, so that q needs no
// exp().
double Kl(std::span<const float> a, double lse_a, std::span<const float> b, double lse_b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double ai = a[i];
    sum += std::exp(ai - lse_a) * (ai - static_cast<double>(b[i]));
  }
  // Rounding can leave -1e-16 where the truth is 0. In this order of arguments NaN stays NaN.
  return std::max(sum - lse_a + lse_b, 0.0);
}

void Divergence::Add(std::span<const float> reference, std::span<const float> scheme, int next_token) {
  KVANT_CHECK(reference.size() == scheme.size());
  KVANT_CHECK(next_token >= 0 && static_cast<size_t>(next_token) < reference.size());
  const double lse_reference = LogSumExp(reference);
  const double lse_scheme = LogSumExp(scheme);
  kl_.push_back(Kl(reference, lse_reference, scheme, lse_scheme));
  num_same_top_ += ArgMax(reference) == ArgMax(scheme);
  const size_t next = static_cast<size_t>(next_token);
  reference_nats_ += lse_reference - static_cast<double>(reference[next]);
  scheme_nats_ += lse_scheme - static_cast<double>(scheme[next]);
}

DivergenceSummary Divergence::Summarize() const {
  KVANT_CHECK(!kl_.empty());
  const double n = static_cast<double>(kl_.size());
  const double mean = std::accumulate(kl_.begin(), kl_.end(), 0.0) / n;
  return {.positions = static_cast<int64_t>(kl_.size()),
          .kl = mean,
          .kl_stderr = StandardError(kl_, mean),
          .kl_interval = BootstrapInterval(kl_, kDivergenceWindow),
          .kl_p99 = Percentile(kl_, 0.99),
          .top1 = static_cast<double>(num_same_top_) / n,
          .ppl_reference = std::exp(reference_nats_ / n),
          .ppl = std::exp(scheme_nats_ / n),
          .kl_by_window = WindowMeans(kl_, kDivergenceWindow)};
}

}  // namespace kvant
