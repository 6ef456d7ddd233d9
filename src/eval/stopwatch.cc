#include "eval/stopwatch.h"

#include <algorithm>
#include <vector>

namespace kvant {

Result<double> MedianDecodeMs(Runner& runner, std::span<const int> tokens, int count) {
  std::vector<double> milliseconds;
  for (int i = 0; i < count; ++i) {
    const Stopwatch watch;
    KVANT_TRY(runner.Decode(tokens.subspan(static_cast<size_t>(i) % tokens.size(), 1), false));
    milliseconds.push_back(1e3 * watch.seconds());
  }
  if (milliseconds.empty()) return 0.0;
  const auto median = milliseconds.begin() + static_cast<ptrdiff_t>(milliseconds.size() / 2);
  std::nth_element(milliseconds.begin(), median, milliseconds.end());
  return *median;
}

}  // namespace kvant
