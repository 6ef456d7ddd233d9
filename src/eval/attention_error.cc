#include "eval/attention_error.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "codec/codec.h"
#include "kvant/plan.h"
#include "page/block_layout.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

constexpr int kUnit = 2 * kTokensPerPage;  // of a sample

// Their store has to know how the model turns keys, which only its graph says.
bool KeepsKeysBeforeRope(const Scheme& scheme) {
  return std::ranges::any_of(scheme.Choices(/*is_key=*/true), [](const CodecChoice& choice) {
    const Result<Codec> codec = MakeCodec(choice.name, choice.options, {.side = Side::kKey, .dim = 128});
    return codec.ok() && codec->state->keys_before_rope;
  });
}

class AttentionError : public Task {
 public:
  AttentionError(const AttentionErrorOptions& options, std::string_view text, std::string text_name)
      : options_(options), text_(text), text_name_(std::move(text_name)) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override { return {{"text", HashText(text_)}, {"tokens", options_.tokens}}; }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& errors) const override {
    const double sum = std::accumulate(errors.begin(), errors.end(), 0.0,
                                       [](double so_far, const Json& error) { return so_far + error.get<double>(); });
    return StrFormat("%.4f", sum / static_cast<double>(errors.size()));
  }

 private:
  Status Watch(const TaskRun& run);

  const TaskInfo info_ = {"attention-error", "/attention_error_by_layer", "attention error", /*needs_reference=*/true};
  const AttentionErrorOptions options_;
  const std::string_view text_;
  const std::string text_name_;
  std::vector<int> tokens_;
  std::vector<LayerShape> layers_;
  std::unique_ptr<AttentionSample> sample_;
};

Status AttentionError::Prepare(const Runner& model) {
  tokens_ = model.Tokenize(text_, true);
  layers_ = model.info().layers;
  const size_t most = static_cast<size_t>(std::min(options_.tokens, model.info().context_train));
  const size_t tokens = std::min(tokens_.size(), most) / kUnit * kUnit;
  if (tokens == 0) {
    return Status::InvalidArgument(StrFormat("attention-error: %s has %zu tokens, at least %d are needed",
                                             text_name_.c_str(), tokens_.size(), kUnit));
  }
  tokens_.resize(tokens);
  return Status::Ok();
}

Status AttentionError::Watch(const TaskRun& run) {
  sample_ = std::make_unique<AttentionSample>(layers_, std::ssize(tokens_));
  TaskRun watched = run;
  watched.options.maybe_watcher = sample_.get();
  const auto runner = watched.Open(static_cast<int>(tokens_.size()));
  if (!runner.ok()) return runner.status();
  return (*runner)->Decode(tokens_, false);
}

Result<Json> AttentionError::Run(const TaskRun& run) {
  if (run.is_reference) {
    KVANT_TRY(Watch(run));
    run.progress(1, 1);
    return Json(std::vector<double>(layers_.size(), 0.0));
  }
  const Result<Scheme> scheme = ReadScheme(run.options.cache);
  if (!scheme.ok()) return Json();  // one of the host's own types
  if (KeepsKeysBeforeRope(*scheme)) return Json();
  const auto errors = sample_->Errors(*scheme, run.options.maybe_calibration);
  run.progress(1, 1);
  if (!errors.ok()) return errors.status();
  return Json(*errors);
}

}  // namespace

std::unique_ptr<Task> MakeAttentionError(const AttentionErrorOptions& options, std::string_view text,
                                         std::string text_name) {
  return std::make_unique<AttentionError>(options, text, std::move(text_name));
}

}  // namespace kvant
