// Task "needle-grid": where in how long a text the model still finds what stands there once.
//
// G. Kamradt, Needle in a Haystack, 2023: depth x length. Here a text of each length holds all needles of all depths at once,
// as in the multi-needle form (C. Hsieh et al., RULER, 2024), so that one prefill serves a whole line of the grid.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace kvant {

struct NeedleGridOptions {
  std::vector<int> lengths;  ///< tokens of text with its needles, ascending
  int depths = 5;            ///< bands of equal size; the middle of each stands in the result
  int needles = 3;           ///< in each band of each length
  uint64_t seed = 1;
};

/// Result: {"lengths", "depths", "right": [[of depth] of length], "asked": the same}. `text` has to outlive the task, and
/// to have enough tokens for the largest length; `text_name` is what messages call it.
std::unique_ptr<Task> MakeNeedleGrid(const NeedleGridOptions& options, std::string_view text, std::string text_name);

}  // namespace kvant
