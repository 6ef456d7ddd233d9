#include "eval/questions.h"

#include <algorithm>
#include <vector>

#include "eval/generate.h"
#include "eval/text_lines.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

// Beyond the answer: white space before it, punctuation after it, the end of the line.
constexpr int kMoreTokens = 8;
constexpr std::string_view kPunctuation = " \t\r.,;:!?\"'";

struct Question {
  std::string prompt;
  std::string answer;
};

class Questions : public Task {
 public:
  Questions(std::vector<Question> questions, std::string hash, std::string name)
      : questions_(std::move(questions)), hash_(std::move(hash)), name_(std::move(name)) {}

  const TaskInfo& info() const override { return info_; }
  Json options() const override { return {{"questions", hash_}}; }
  Status Prepare(const Runner& model) override;
  Result<Json> Run(const TaskRun& run) override;
  std::string Show(const Json& result) const override { return ShowShare(result); }

 private:
  static Result<std::string> Ask(Runner& runner, const Question& question);
  static int AnswerTokens(const Runner& model, const Question& question) {
    return static_cast<int>(model.Tokenize(question.answer, false).size()) + kMoreTokens;
  }

  const TaskInfo info_ = {"questions", "/tasks/questions", "questions"};
  const std::vector<Question> questions_;
  const std::string hash_;
  const std::string name_;
  int context_ = 0;
};

Status Questions::Prepare(const Runner& model) {
  for (const Question& question : questions_) {
    const int tokens = static_cast<int>(model.Tokenize(question.prompt, true).size()) + AnswerTokens(model, question);
    context_ = std::max(context_, tokens);
  }
  return CheckContext(model, name_.c_str(), context_);
}

Result<std::string> Questions::Ask(Runner& runner, const Question& question) {
  KVANT_TRY(runner.Truncate(0));
  KVANT_TRY(FeedPages(runner, runner.Tokenize(question.prompt, true)));
  const auto has_line = [](std::string_view text) {
    const size_t start = text.find_first_not_of(" \t\r\n");
    return start != std::string_view::npos && text.find('\n', start) != std::string_view::npos;
  };
  return GenerateText(runner, AnswerTokens(runner, question), has_line);
}

Result<Json> Questions::Run(const TaskRun& run) {
  const auto runner = run.Open(context_);
  if (!runner.ok()) return runner.status();
  int64_t right = 0, asked = 0;
  for (const Question& question : questions_) {
    const Result<std::string> written = Ask(**runner, question);
    if (!written.ok()) return written.status();
    right += IsAnswer(*written, question.answer);
    run.progress(++asked, std::ssize(questions_));
  }
  return ShareJson(right, asked);
}

std::string_view Bare(std::string_view text) {
  text = TrimEnd(text, kPunctuation);
  text.remove_prefix(std::min(text.size(), text.find_first_not_of(kPunctuation)));
  return text;
}

}  // namespace

bool IsAnswer(std::string_view written, std::string_view expected) {
  const std::vector<TextLine> lines = Lines(written);
  return !lines.empty() && Bare(lines.front().text) == Bare(Trim(expected));
}

Result<std::unique_ptr<Task>> MakeQuestions(std::string_view text, std::string name) {
  const Result<std::vector<JsonLine>> lines = ParseJsonLines(text, name, {"prompt", "answer"});
  if (!lines.ok()) return lines.status();
  std::vector<Question> questions;
  for (const JsonLine& line : *lines) {
    questions.push_back({line.value["prompt"], line.value["answer"]});
    if (Bare(Trim(questions.back().answer)).empty()) {
      return Status::InvalidArgument(StrFormat("%s, line %d: an empty answer", name.c_str(), line.number));
    }
  }
  return std::unique_ptr<Task>(std::make_unique<Questions>(std::move(questions), HashText(text), std::move(name)));
}

}  // namespace kvant
