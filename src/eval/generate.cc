#include "eval/generate.h"

#include <algorithm>

#include "eval/divergence.h"
#include "page/block_layout.h"

namespace kvant {

Status FeedPages(Runner& runner, std::span<const int> tokens) {
  for (size_t first = 0; first < tokens.size(); first += kTokensPerPage) {
    const size_t count = std::min<size_t>(kTokensPerPage, tokens.size() - first);
    KVANT_TRY(runner.Decode(tokens.subspan(first, count), false));
  }
  return Status::Ok();
}

Result<std::string> GenerateText(Runner& runner, int max_tokens,
                                 const std::function<bool(std::string_view text)>& is_done) {
  std::string text;
  for (int i = 0; i < max_tokens; ++i) {
    const int token = ArgMax(runner.Logits(-1));
    if (runner.IsEndOfGeneration(token)) break;
    text += runner.Detokenize(token);
    if (is_done(text)) break;
    KVANT_TRY(runner.Decode(std::span(&token, 1), false));
  }
  return text;
}

Result<std::vector<int>> GenerateTokens(Runner& runner, int count) {
  std::vector<int> tokens;
  while (static_cast<int>(tokens.size()) < count) {
    if (!tokens.empty()) KVANT_TRY(runner.Decode(std::span(tokens).last(1), false));
    tokens.push_back(ArgMax(runner.Logits(-1)));
  }
  return tokens;
}

}  // namespace kvant
