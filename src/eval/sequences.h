// Task "sequences": several texts in one context at a time, as a server has them, give what each gives alone.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "eval/task.h"

namespace kvant {

struct SequencesOptions {
  int sequences = 3;
  int prompt_tokens = 256;  ///< of the first; each next one has 64 + 7 more, so that pages do not end together
  int tokens = 32;          ///< generated after each
};

/// Each text goes through the model alone, and greedily on. Then all are in one context, the tokens just generated are fed to
/// all of them in common steps, and the most probable next tokens are compared. Result: {"right", "asked"} over the steps of
/// all sequences. A batch of several tokens is rounded otherwise than one of a single token, so a near tie may flip, with fp16
/// as well. Prepare: InvalidArgument when the text is too short.
std::unique_ptr<Task> MakeSequences(const SequencesOptions& options, std::string_view text, std::string text_name);

}  // namespace kvant
