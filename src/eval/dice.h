// Draws that are the same on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace kvant {

/// std::uniform_int_distribution differs between standard libraries; the bias of the remainder does not matter here.
class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  /// One of 0 .. n - 1. REQUIRES: n > 0
  size_t Below(size_t n) { return static_cast<size_t>(random_() % n); }

 private:
  std::mt19937_64 random_;
};

}  // namespace kvant
