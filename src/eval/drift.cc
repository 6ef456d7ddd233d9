#include "eval/drift.h"

#include <algorithm>
#include <span>

#include "base/check.h"
#include "eval/generate.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

class Drift : public Task {
 public:
  Drift(const DriftOptions& options, std::string_view text, std::string text_name)
      : options_(options), text_(text), text_name_(std::move(text_name)) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override {
    return {{"text", HashText(text_)},
            {"prompts", options_.prompts},
            {"prompt_tokens", options_.prompt_tokens},
            {"tokens", options_.tokens}};
  }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& result) const override {
    return StrFormat("%.0f (%.0f %%)", result.at("first_difference").get<double>(),
                     100 * result.at("agreement").get<double>());
  }

 private:
  Result<std::vector<int>> Generate(Runner& runner, int prompt) const;

  const TaskInfo info_ = {"drift", "/tasks/drift", "drift", /*needs_reference=*/true};
  const DriftOptions options_;
  const std::string_view text_;
  const std::string text_name_;
  std::vector<int> tokens_;
  std::vector<std::vector<int>> reference_;  ///< generated after each prompt
};

Status Drift::Prepare(const Runner& model) {
  KVANT_TRY(CheckContext(model, "drift", options_.prompt_tokens + options_.tokens));
  tokens_ = model.Tokenize(text_, true);
  const size_t needed = static_cast<size_t>(options_.prompts) * static_cast<size_t>(options_.prompt_tokens);
  if (tokens_.size() >= needed) return Status::Ok();
  return Status::InvalidArgument(StrFormat("drift: %s has %zu tokens, %d prompts of %d need %zu", text_name_.c_str(),
                                           tokens_.size(), options_.prompts, options_.prompt_tokens, needed));
}

Result<std::vector<int>> Drift::Generate(Runner& runner, int prompt) const {
  const auto length = static_cast<size_t>(options_.prompt_tokens);
  KVANT_TRY(runner.Truncate(0));
  KVANT_TRY(FeedPages(runner, std::span(tokens_).subspan(static_cast<size_t>(prompt) * length, length)));
  return GenerateTokens(runner, options_.tokens);
}

Result<Json> Drift::Run(const TaskRun& run) {
  const auto runner = run.Open(options_.prompt_tokens + options_.tokens);
  if (!runner.ok()) return runner.status();
  if (run.is_reference) reference_.clear();
  double first = 0, same = 0;
  for (int prompt = 0; prompt < options_.prompts; ++prompt) {
    const Result<std::vector<int>> tokens = Generate(**runner, prompt);
    if (!tokens.ok()) return tokens.status();
    if (run.is_reference) reference_.push_back(*tokens);
    KVANT_CHECK(static_cast<size_t>(prompt) < reference_.size());
    const std::vector<int>& expected = reference_[static_cast<size_t>(prompt)];
    first += static_cast<double>(std::ranges::mismatch(*tokens, expected).in1 - tokens->begin());
    for (size_t i = 0; i < expected.size(); ++i) same += (*tokens)[i] == expected[i];
    run.progress(prompt + 1, options_.prompts);
  }
  return Json{{"tokens", options_.tokens},
              {"prompts", options_.prompts},
              {"first_difference", first / options_.prompts},
              {"agreement", same / options_.prompts / options_.tokens}};
}

}  // namespace

std::unique_ptr<Task> MakeDrift(const DriftOptions& options, std::string_view text, std::string text_name) {
  return std::make_unique<Drift>(options, text, std::move(text_name));
}

}  // namespace kvant
