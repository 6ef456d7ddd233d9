// Task "speed": decoding and prefill at several lengths of the context.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace kvant {

struct SpeedOptions {
  std::vector<int> lengths;  ///< tokens in the cache, ascending
  int decode_tokens = 16;    ///< at each length
};

/// Result: [{"tokens", "decode_ms": median of one token with so many in the cache, "prefill_tokens_per_s": of feeding them
/// all}]. The text is repeated where it is too short: which tokens are fed makes no difference to the time.
std::unique_ptr<Task> MakeSpeed(const SpeedOptions& options, std::string_view text);

}  // namespace kvant
