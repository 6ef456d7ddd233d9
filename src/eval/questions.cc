#include "eval/questions.h"

#include <algorithm>
#include <vector>

#include "eval/generate.h"
#include "eval/item_task.h"
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

class Questions : public ItemTask {
 public:
  Questions(std::vector<Question> questions, std::string hash, std::string name)
      : ItemTask({"questions", "/tasks/questions", "questions"}, "questions", std::move(hash), std::move(name)),
        questions_(std::move(questions)) {}

 private:
  static int AnswerTokens(const Runner& model, const Question& question) {
    return static_cast<int>(model.Tokenize(question.answer, false).size()) + kMoreTokens;
  }
  size_t num_items() const override { return questions_.size(); }
  int PrepareItem(const Runner& model, size_t i) override {
    return static_cast<int>(model.Tokenize(questions_[i].prompt, true).size()) + AnswerTokens(model, questions_[i]);
  }
  Result<bool> IsRight(Runner& runner, size_t i) const override;

  const std::vector<Question> questions_;
};

Result<bool> Questions::IsRight(Runner& runner, size_t i) const {
  const Question& question = questions_[i];
  KVANT_TRY(FeedPages(runner, runner.Tokenize(question.prompt, true)));
  const auto has_line = [](std::string_view text) {
    const size_t start = text.find_first_not_of(" \t\r\n");
    return start != std::string_view::npos && text.find('\n', start) != std::string_view::npos;
  };
  const Result<std::string> written = GenerateText(runner, AnswerTokens(runner, question), has_line);
  if (!written.ok()) return written.status();
  return IsAnswer(*written, question.answer);
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
