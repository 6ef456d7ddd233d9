#include "eval/speed.h"

#include <algorithm>
#include <span>

#include "eval/stopwatch.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

class Speed : public Task {
 public:
  Speed(const SpeedOptions& options, std::string_view text) : options_(options), text_(text) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override { return {{"lengths", options_.lengths}, {"decode_tokens", options_.decode_tokens}}; }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& result) const override;

 private:
  int Context() const { return options_.lengths.back() + options_.decode_tokens; }

  const TaskInfo info_ = {"speed", "/measured/speed_by_context", "decode ms at length"};
  const SpeedOptions options_;
  const std::string_view text_;
  std::vector<int> tokens_;  ///< as many as the longest context
};

Status Speed::Prepare(const Runner& model) {
  KVANT_TRY(CheckContext(model, "speed", Context()));
  const std::vector<int> text = model.Tokenize(text_, true);
  tokens_.clear();
  for (size_t i = 0; i < static_cast<size_t>(options_.lengths.back()); ++i) tokens_.push_back(text[i % text.size()]);
  return Status::Ok();
}

Result<Json> Speed::Run(const TaskRun& run) {
  const auto opened = run.Open(Context());
  if (!opened.ok()) return opened.status();
  Runner& runner = **opened;
  Json result = Json::array();
  double prefill_seconds = 0;
  for (const int length : options_.lengths) {
    const auto held = static_cast<size_t>(runner.num_tokens());
    const Stopwatch watch;
    KVANT_TRY(runner.Decode(std::span(tokens_).subspan(held, static_cast<size_t>(length) - held), false));
    prefill_seconds += watch.seconds();
    const Result<double> decode_ms = MedianDecodeMs(runner, tokens_, options_.decode_tokens);
    if (!decode_ms.ok()) return decode_ms.status();
    KVANT_TRY(runner.Truncate(length));
    result.push_back(
        {{"tokens", length}, {"decode_ms", *decode_ms}, {"prefill_tokens_per_s", length / prefill_seconds}});
    run.progress(length, options_.lengths.back());
  }
  return result;
}

// "1.20, 1.35, 1.71"
std::string Speed::Show(const Json& result) const {
  std::string text;
  for (const Json& point : result) {
    text += (text.empty() ? "" : ", ") + StrFormat("%.2f", point.at("decode_ms").get<double>());
  }
  return text;
}

}  // namespace

std::unique_ptr<Task> MakeSpeed(const SpeedOptions& options, std::string_view text) {
  return std::make_unique<Speed>(options, text);
}

}  // namespace kvant
