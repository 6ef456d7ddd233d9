#include "eval/last_word.h"

#include <algorithm>
#include <vector>

#include "eval/divergence.h"
#include "eval/generate.h"
#include "eval/text_lines.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

struct Passage {
  std::string before;  ///< without the white space before the last word
  std::string word;
};

class LastWord : public Task {
 public:
  LastWord(std::vector<Passage> passages, std::string hash, std::string name)
      : passages_(std::move(passages)), hash_(std::move(hash)), name_(std::move(name)) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override { return {{"passages", hash_}}; }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& result) const override { return ShowShare(result); }

 private:
  struct Tokens {
    std::vector<int> before;
    std::vector<int> word;
  };
  Result<bool> IsRight(Runner& runner, const Tokens& tokens) const;

  const TaskInfo info_ = {"last-word", "/tasks/last_word", "last word"};
  const std::vector<Passage> passages_;
  const std::string hash_;
  const std::string name_;
  std::vector<Tokens> tokens_;
  int context_ = 0;  ///< of the longest passage
};

Status LastWord::Prepare(const Runner& model) {
  tokens_.clear();
  for (const Passage& passage : passages_) {
    tokens_.push_back({model.Tokenize(passage.before, true), model.Tokenize(" " + passage.word, false)});
    context_ = std::max(context_, static_cast<int>(tokens_.back().before.size() + tokens_.back().word.size()));
  }
  return CheckContext(model, name_.c_str(), context_);
}

// The last token of the word is compared and not fed.
Result<bool> LastWord::IsRight(Runner& runner, const Tokens& tokens) const {
  KVANT_TRY(runner.Truncate(0));
  KVANT_TRY(FeedPages(runner, tokens.before));
  for (size_t i = 0; i < tokens.word.size(); ++i) {
    if (i > 0) KVANT_TRY(runner.Decode(std::span(tokens.word).subspan(i - 1, 1), false));
    if (ArgMax(runner.Logits(-1)) != tokens.word[i]) return false;
  }
  return true;
}

Result<Json> LastWord::Run(const TaskRun& run) {
  const auto runner = run.Open(context_);
  if (!runner.ok()) return runner.status();
  int64_t right = 0, asked = 0;
  for (const Tokens& tokens : tokens_) {
    const Result<bool> is_right = IsRight(**runner, tokens);
    if (!is_right.ok()) return is_right.status();
    right += *is_right;
    run.progress(++asked, std::ssize(tokens_));
  }
  return ShareJson(right, asked);
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
