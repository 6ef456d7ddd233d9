// Task "context-shift": what is left of the quality after a full context was cut, as chat programs do it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "eval/task.h"

namespace kvant {

struct ContextShiftOptions {
  int tokens = 1024;  ///< fed before the shift
  int keep = 4;       ///< of the first that stay, the usual number of attention sinks
  int scored = 256;   ///< fed and scored after it
};

/// Half of the tokens behind the kept ones is forgotten, the others move up. Result: {"kl", "kl_low", "kl_high"}: against
/// the fp16 cache after the same shift, over the scored tokens, as for the text. Null for a cache that cannot move positions.
/// Prepare: InvalidArgument when the text is too short.
std::unique_ptr<Task> MakeContextShift(const ContextShiftOptions& options, std::string_view text,
                                       std::string text_name);

}  // namespace kvant
