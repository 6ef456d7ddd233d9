// Chooses the next token.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace kvant {

/// Temperature 0 takes the most probable token; else tokens are drawn from softmax(logits / temperature), the
/// same ones for the same seed.
class Sampler {
 public:
  Sampler(double temperature, uint64_t seed) : temperature_(temperature), random_(seed) {}
  int Next(std::span<const float> logits);

 private:
  double temperature_;
  std::mt19937_64 random_;
  std::vector<double> weights_;
};

}  // namespace kvant
