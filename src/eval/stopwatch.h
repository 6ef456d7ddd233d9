// Times as an evaluation reports them.
#pragma once

#include <chrono>
#include <span>

#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

/// Runs from its construction on.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// Median time of feeding one more of `tokens`, over the first `count` of them in turn; 0 for count 0. Which tokens are fed
/// makes no difference to the time. They stay in the cache.
Result<double> MedianDecodeMs(Runner& runner, std::span<const int> tokens, int count);

}  // namespace kvant
