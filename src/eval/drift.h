// Task "drift": how long greedy decoding says the same as with the fp16 cache.
//
// Two greedy texts part for good at the first token that differs, however near the two candidates were. So the numbers say
// how repeatable generation is, not how good: measured over several prompts, and against the text's own KL.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace kvant {

struct DriftOptions {
  int prompts = 4;          ///< successive pieces of the text
  int prompt_tokens = 512;  ///< of each piece
  int tokens = 256;         ///< generated after each
};

/// Result: {"tokens", "prompts", "first_difference": tokens before the first one that differs, "agreement": share of the
/// tokens that are the same at the same place}, the last two means over the prompts; a text without a difference counts with
/// all its tokens. Prepare: InvalidArgument when the text is too short.
std::unique_ptr<Task> MakeDrift(const DriftOptions& options, std::string_view text, std::string text_name);

}  // namespace kvant
