#include "eval/needle_grid.h"

#include <algorithm>

#include "eval/needle.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

class NeedleGrid : public Task {
 public:
  NeedleGrid(const NeedleGridOptions& options, std::string_view text, std::string text_name)
      : options_(options), text_(text), text_name_(std::move(text_name)) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override {
    return {{"text", HashText(text_)},
            {"lengths", options_.lengths},
            {"depths", options_.depths},
            {"needles", options_.needles},
            {"seed", options_.seed}};
  }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& result) const override;

 private:
  int NeedlesPerLength() const { return options_.depths * options_.needles; }
  // Other needles at each length.
  std::vector<Needle> Needles(size_t length) const { return MakeNeedles(NeedlesPerLength(), options_.seed + length); }
  Result<Json> RunLength(const TaskRun& run, size_t length, int64_t asked_before) const;

  const TaskInfo info_ = {"needle-grid", "/tasks/needle_grid", "needle grid"};
  const NeedleGridOptions options_;
  const std::string_view text_;
  const std::string text_name_;
  std::vector<std::vector<int>> tokens_;  ///< of each length
};

Status NeedleGrid::Prepare(const Runner& model) {
  tokens_.clear();
  for (size_t i = 0; i < options_.lengths.size(); ++i) {
    const int length = options_.lengths[i];
    KVANT_TRY(CheckContext(model, "needle grid", length + kNeedleReserveTokens));
    Result<std::vector<int>> tokens =
        HideNeedles(model, text_, text_name_, Needles(i), EvenDepths(NeedlesPerLength()), length);
    if (!tokens.ok()) return {tokens.status().code(), "needle grid: " + tokens.status().message()};
    tokens_.push_back(std::move(*tokens));
  }
  return Status::Ok();
}

// One line of the grid: [right of depth].
Result<Json> NeedleGrid::RunLength(const TaskRun& run, size_t length, int64_t asked_before) const {
  const auto runner = run.Open(options_.lengths[length] + kNeedleReserveTokens);
  if (!runner.ok()) return runner.status();
  KVANT_TRY((*runner)->Decode(tokens_[length], false));
  const std::vector<Needle> needles = Needles(length);
  std::vector<int> right(static_cast<size_t>(options_.depths), 0);
  for (size_t i = 0; i < needles.size(); ++i) {
    const Result<std::string> digits = AskNeedle(**runner, needles[i]);
    if (!digits.ok()) return digits.status();
    right[i / static_cast<size_t>(options_.needles)] += *digits == needles[i].answer;
    run.progress(asked_before + static_cast<int64_t>(i) + 1,
                 std::ssize(options_.lengths) * static_cast<int64_t>(needles.size()));
  }
  return Json(right);
}

Result<Json> NeedleGrid::Run(const TaskRun& run) {
  Json result = {{"lengths", options_.lengths}, {"depths", EvenDepths(options_.depths)}};
  for (size_t i = 0; i < options_.lengths.size(); ++i) {
    Result<Json> right = RunLength(run, i, static_cast<int64_t>(i) * NeedlesPerLength());
    if (!right.ok()) return right.status();
    result["right"].push_back(std::move(*right));
    result["asked"].push_back(std::vector<int>(static_cast<size_t>(options_.depths), options_.needles));
  }
  return result;
}

std::string NeedleGrid::Show(const Json& result) const {
  int64_t sums[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    for (const Json& line : result.at(i ? "asked" : "right")) {
      for (const Json& cell : line) sums[i] += cell.get<int64_t>();
    }
  }
  return std::to_string(sums[0]) + "/" + std::to_string(sums[1]);
}

}  // namespace

std::unique_ptr<Task> MakeNeedleGrid(const NeedleGridOptions& options, std::string_view text, std::string text_name) {
  return std::make_unique<NeedleGrid>(options, text, std::move(text_name));
}

}  // namespace kvant
