#include "eval/last_word.h"

#include <algorithm>
#include <vector>

#include "eval/divergence.h"
#include "eval/generate.h"
#include "eval/item_task.h"
#include "eval/text_lines.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

struct Passage {
  std::string before;  ///< without the white space before the last word
  std::string word;
};

class LastWord : public ItemTask {
 public:
  LastWord(std::vector<Passage> passages, std::string hash, std::string name)
      : ItemTask({"last-word", "/tasks/last_word", "last word"}, "passages", std::move(hash), std::move(name)),
        passages_(std::move(passages)),
        tokens_(passages_.size()) {}

 private:
  struct Tokens {
    std::vector<int> before;
    std::vector<int> word;
  };
  size_t num_items() const override { return passages_.size(); }
  int PrepareItem(const Runner& model, size_t i) override {
    tokens_[i] = {model.Tokenize(passages_[i].before, true), model.Tokenize(" " + passages_[i].word, false)};
    return static_cast<int>(tokens_[i].before.size() + tokens_[i].word.size());
  }
  Result<bool> IsRight(Runner& runner, size_t i) const override;

  const std::vector<Passage> passages_;
  std::vector<Tokens> tokens_;
};

// The last token of the word is compared and not fed.
Result<bool> LastWord::IsRight(Runner& runner, size_t item) const {
  const Tokens& tokens = tokens_[item];
  KVANT_TRY(FeedPages(runner, tokens.before));
  for (size_t i = 0; i < tokens.word.size(); ++i) {
    if (i > 0) KVANT_TRY(runner.Decode(std::span(tokens.word).subspan(i - 1, 1), false));
    if (ArgMax(runner.Logits(-1)) != tokens.word[i]) return false;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<Task>> MakeLastWord(std::string_view text, std::string name) {
  std::vector<Passage> passages;
  for (const TextLine& line : Lines(text)) {
    const std::string_view passage = TrimEnd(line.text, " \t.,;:!?\"')");
    const size_t blank = passage.find_last_of(" \t");
    const std::string_view before = blank == std::string_view::npos ? "" : Trim(passage.substr(0, blank));
    if (before.empty()) {
      return Status::InvalidArgument(StrFormat(
          "%s, line %d: a single word; accepted: a passage whose last word is asked", name.c_str(), line.number));
    }
    passages.push_back({std::string(before), std::string(passage.substr(blank + 1))});
  }
  if (passages.empty()) return Status::InvalidArgument(name + ": no passage; accepted: one per line");
  return std::unique_ptr<Task>(std::make_unique<LastWord>(std::move(passages), HashText(text), std::move(name)));
}

}  // namespace kvant
