#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "eval/divergence.h"

namespace kvant {

int Sampler::Next(std::span<const float> logits) {
  if (temperature_ == 0) return ArgMax(logits);
  const double max = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  weights_.clear();
  for (float logit : logits) {
    weights_.push_back(std::exp((logit - max) / temperature_));
    total += weights_.back();
  }
  // 53 random bits make a uniform double; std::uniform_real_distribution is not the same everywhere.
  double left = total * static_cast<double>(random_() >> 11) * 0x1p-53;
  for (size_t i = 0; i < weights_.size(); ++i) {
    left -= weights_[i];
    if (left < 0) return static_cast<int>(i);
  }
  return ArgMax(logits);  // rounding has used up the weights
}

}  // namespace kvant
