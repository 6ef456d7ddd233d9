// Greedy continuation, for tasks that ask a model something.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

/// Feeds tokens in chunks of one page. The rows of the chunk at hand are exact in a kvant cache, so that in chunks of a page
/// a prompt is read from the cache as in decoding; in one piece a short prompt would never meet a compressed row.
/// Keeps the logits of the last token.
Status FeedPages(Runner& runner, std::span<const int> tokens);

/// The most probable token after those held, fed in turn, until `is_done` of the text so far, the model's end of text, or
/// `max_tokens`. What is fed stays. REQUIRES: the logits of the last token are there.
Result<std::string> GenerateText(Runner& runner, int max_tokens,
                                 const std::function<bool(std::string_view text)>& is_done);

/// The same for exactly `count` tokens, whatever they are; the last one is not fed.
Result<std::vector<int>> GenerateTokens(Runner& runner, int count);

}  // namespace kvant
