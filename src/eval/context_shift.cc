#include "eval/context_shift.h"

#include <algorithm>
#include <span>
#include <vector>

#include "eval/divergence.h"
#include "eval/generate.h"
#include "eval/logit_file.h"
#include "page/block_layout.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

class ContextShift : public Task {
 public:
  ContextShift(const ContextShiftOptions& options, std::string_view text, std::string text_name)
      : options_(options), text_(text), text_name_(std::move(text_name)) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override {
    return {
        {"text", HashText(text_)}, {"tokens", options_.tokens}, {"keep", options_.keep}, {"scored", options_.scored}};
  }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& result) const override { return StrFormat("%.5f", result.at("kl").get<double>()); }

 private:
  Result<DivergenceSummary> Score(const TaskRun& run, Runner& runner);

  const TaskInfo info_ = {"context-shift", "/tasks/context_shift", "KL after shift", /*needs_reference=*/true};
  const ContextShiftOptions options_;
  const std::string_view text_;
  const std::string text_name_;
  std::vector<int> tokens_;
  std::unique_ptr<LogitFile> reference_;
  std::vector<float> reference_logits_;
};

Status ContextShift::Prepare(const Runner& model) {
  KVANT_TRY(CheckContext(model, "context-shift", options_.tokens + options_.scored));
  tokens_ = model.Tokenize(text_, true);
  reference_logits_.resize(static_cast<size_t>(model.info().vocab_size));
  const auto needed = static_cast<size_t>(options_.tokens + options_.scored + 1);
  if (tokens_.size() >= needed) return Status::Ok();
  return Status::InvalidArgument(
      StrFormat("context-shift: %s has %zu tokens, %zu are needed", text_name_.c_str(), tokens_.size(), needed));
}

Result<DivergenceSummary> ContextShift::Score(const TaskRun& run, Runner& runner) {
  Divergence divergence;
  for (int done = 0; done < options_.scored;) {
    const int count = std::min(kTokensPerPage, options_.scored - done);
    const auto pos = static_cast<size_t>(options_.tokens + done);
    KVANT_TRY(runner.Decode(std::span(tokens_).subspan(pos, static_cast<size_t>(count)), true));
    for (int i = 0; i < count; ++i) {
      if (run.is_reference) KVANT_TRY(reference_->Append(runner.Logits(i)));
      KVANT_TRY(reference_->Read(done + i, reference_logits_));
      divergence.Add(reference_logits_, runner.Logits(i), tokens_[pos + static_cast<size_t>(i) + 1]);
    }
    done += count;
    run.progress(done, options_.scored);
  }
  return divergence.Summarize();
}

Result<Json> ContextShift::Run(const TaskRun& run) {
  if (run.is_reference) {
    Result<LogitFile> file = LogitFile::Create(static_cast<int>(reference_logits_.size()));
    if (!file.ok()) return file.status();
    reference_ = std::make_unique<LogitFile>(std::move(*file));
  }
  const auto runner = run.Open(options_.tokens + options_.scored);
  if (!runner.ok()) return runner.status();
  KVANT_TRY(FeedPages(**runner, std::span(tokens_).first(static_cast<size_t>(options_.tokens))));
  const Status shifted = (*runner)->Shift(options_.keep, (options_.tokens - options_.keep) / 2);
  if (shifted.code() == StatusCode::kNotSupported) return Json();
  KVANT_TRY(shifted);
  const Result<DivergenceSummary> summary = Score(run, **runner);
  if (!summary.ok()) return summary.status();
  return Json{{"kl", summary->kl}, {"kl_low", summary->kl_interval.low}, {"kl_high", summary->kl_interval.high}};
}

}  // namespace

std::unique_ptr<Task> MakeContextShift(const ContextShiftOptions& options, std::string_view text,
                                       std::string text_name) {
  return std::make_unique<ContextShift>(options, text, std::move(text_name));
}

}  // namespace kvant
