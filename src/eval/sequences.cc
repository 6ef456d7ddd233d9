#include "eval/sequences.h"

#include <span>
#include <vector>

#include "eval/divergence.h"
#include "eval/generate.h"
#include "page/block_layout.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using Tokens = std::vector<int>;

constexpr int kMoreTokens = kTokensPerPage + 7;

class Sequences : public Task {
 public:
  Sequences(const SequencesOptions& options, std::string_view text, std::string text_name)
      : options_(options), text_(text), text_name_(std::move(text_name)) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override {
    return {{"text", HashText(text_)},
            {"sequences", options_.sequences},
            {"prompt_tokens", options_.prompt_tokens},
            {"tokens", options_.tokens}};
  }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& result) const override { return ShowShare(result); }

 private:
  int Context() const { return options_.prompt_tokens + (options_.sequences - 1) * kMoreTokens + options_.tokens; }
  Result<std::vector<Tokens>> Alone(const TaskRun& run) const;
  Status FeedPrompts(Runner& runner) const;
  Result<int64_t> CountSame(const TaskRun& run, const std::vector<Tokens>& alone) const;

  const TaskInfo info_ = {"sequences", "/tasks/sequences", "sequences"};
  const SequencesOptions options_;
  const std::string_view text_;
  const std::string text_name_;
  std::vector<Tokens> prompts_;
};

Status Sequences::Prepare(const Runner& model) {
  KVANT_TRY(CheckContext(model, "sequences", Context()));
  const Tokens tokens = model.Tokenize(text_, true);
  prompts_.clear();
  size_t first = 0;
  for (int s = 0; s < options_.sequences; ++s) {
    const auto length = static_cast<size_t>(options_.prompt_tokens + s * kMoreTokens);
    if (first + length > tokens.size()) {
      return Status::InvalidArgument(
          StrFormat("sequences: %s has %zu tokens, %zu are needed", text_name_.c_str(), tokens.size(), first + length));
    }
    const auto prompt = std::span(tokens).subspan(first, length);
    prompts_.emplace_back(prompt.begin(), prompt.end());
    first += length;
  }
  return Status::Ok();
}

// What each sequence says by itself.
Result<std::vector<Tokens>> Sequences::Alone(const TaskRun& run) const {
  const auto runner = run.Open(Context());
  if (!runner.ok()) return runner.status();
  std::vector<Tokens> alone;
  for (const Tokens& prompt : prompts_) {
    KVANT_TRY((*runner)->Truncate(0));
    KVANT_TRY(FeedPages(**runner, prompt));
    Result<Tokens> tokens = GenerateTokens(**runner, options_.tokens);
    if (!tokens.ok()) return tokens.status();
    alone.push_back(std::move(*tokens));
    run.progress(std::ssize(alone), options_.sequences + 1);
  }
  return alone;
}

// In turns of a page each, as requests arrive in a server.
Status Sequences::FeedPrompts(Runner& runner) const {
  for (size_t first = 0, longest = prompts_.back().size(); first < longest; first += kTokensPerPage) {
    for (int s = 0; s < options_.sequences; ++s) {
      const Tokens& prompt = prompts_[static_cast<size_t>(s)];
      if (first >= prompt.size()) continue;
      runner.UseSequence(s);
      KVANT_TRY(runner.Decode(std::span(prompt).subspan(first, std::min<size_t>(kTokensPerPage, prompt.size() - first)),
                              false));
    }
  }
  return Status::Ok();
}

// The first generated token follows from the prompt and is compared with nothing.
Result<int64_t> Sequences::CountSame(const TaskRun& run, const std::vector<Tokens>& alone) const {
  const auto runner = run.Open(Context(), options_.sequences);
  if (!runner.ok()) return runner.status();
  KVANT_TRY(FeedPrompts(**runner));
  int64_t same = 0;
  for (size_t step = 0; step + 1 < static_cast<size_t>(options_.tokens); ++step) {
    Tokens next;
    for (const Tokens& tokens : alone) next.push_back(tokens[step]);
    KVANT_TRY((*runner)->DecodeTogether(next));
    for (size_t s = 0; s < alone.size(); ++s) {
      same += ArgMax((*runner)->Logits(static_cast<int>(s))) == alone[s][step + 1];
    }
  }
  run.progress(options_.sequences + 1, options_.sequences + 1);
  return same;
}

Result<Json> Sequences::Run(const TaskRun& run) {
  const Result<std::vector<Tokens>> alone = Alone(run);
  if (!alone.ok()) return alone.status();
  const Result<int64_t> same = CountSame(run, *alone);
  if (!same.ok()) return same.status();
  return Json{{"right", *same}, {"asked", options_.sequences * (options_.tokens - 1)}};
}

}  // namespace

std::unique_ptr<Task> MakeSequences(const SequencesOptions& options, std::string_view text, std::string text_name) {
  return std::make_unique<Sequences>(options, text, std::move(text_name));
}

}  // namespace kvant
