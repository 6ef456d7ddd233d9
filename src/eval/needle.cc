#include "eval/needle.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/check.h"
#include "eval/dice.h"
#include "eval/generate.h"

namespace kvant {
namespace {

struct Template {
  const char* statement;
  const char* question;
};

constexpr std::array kTemplates = {
    Template{"The secret number of %s is %s.", "Question: What is the secret number of %s? Answer:"},
    Template{"Remember that the pass key of %s is %s.", "Question: What is the pass key of %s? Answer:"},
    Template{"%s lives in house number %s.", "Question: In which house number does %s live? Answer:"},
};

constexpr std::array kSyllables = {"ba", "be", "bi", "bo", "da", "de", "di", "do", "fa", "fe", "ka", "ke",
                                   "ki", "ko", "la", "le", "li", "lo", "ma", "me", "mi", "mo", "na", "ne",
                                   "ni", "no", "pa", "pe", "ra", "re", "ri", "ro", "sa", "se", "si", "so",
                                   "ta", "te", "ti", "to", "va", "ve", "vi", "vo", "za", "ze"};

// An answer has five digits; a model that has not written them after this many tokens writes something else.
constexpr int kMaxAnswerTokens = 12;

std::string MakeName(Dice& dice) {
  std::string name;
  const size_t syllables = 2 + dice.Below(3);
  for (size_t i = 0; i < syllables; ++i) name += kSyllables[dice.Below(kSyllables.size())];
  name[0] = static_cast<char>(name[0] - 'a' + 'A');
  return name;
}

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The digits that `text` starts with after white space; `*complete` when something else follows them.
std::string LeadingDigits(std::string_view text, bool* complete) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  const auto end = std::find_if_not(text.begin(), text.end(), IsDigit);
  *complete = end != text.end();
  return std::string(text.begin(), end);
}

Result<std::string> GenerateDigits(Runner& runner) {
  bool complete = false;
  const auto is_done = [&](std::string_view text) { return LeadingDigits(text, &complete), complete; };
  const Result<std::string> text = GenerateText(runner, kMaxAnswerTokens, is_done);
  return text.ok() ? LeadingDigits(*text, &complete) : text;
}

}  // namespace

std::vector<Needle> MakeNeedles(int count, uint64_t seed) {
  Dice dice(seed);
  std::set<std::string> names;
  std::vector<Needle> needles;
  while (static_cast<int>(needles.size()) < count) {
    const std::string name = MakeName(dice);
    if (!names.insert(name).second) continue;
    const Template& t = kTemplates[dice.Below(kTemplates.size())];
    const std::string answer = std::to_string(10000 + dice.Below(90000));
    needles.push_back(
        {StrFormat(t.statement, name.c_str(), answer.c_str()), StrFormat(t.question, name.c_str()), answer});
  }
  return needles;
}

std::vector<double> EvenDepths(int count) {
  std::vector<double> depths;
  for (int i = 0; i < count; ++i) depths.push_back((i + 0.5) / count);
  return depths;
}

Result<std::vector<int>> HideNeedles(const Runner& runner, std::string_view text, std::string_view text_name,
                                     std::span<const Needle> needles, std::span<const double> depths, int total) {
  KVANT_CHECK(needles.size() == depths.size());
  const std::vector<int> body = runner.Tokenize(text, true);
  std::vector<std::vector<int>> hidden;
  size_t hidden_tokens = 0;
  for (const Needle& needle : needles) {
    hidden.push_back(runner.Tokenize(" " + needle.statement, false));
    hidden_tokens += hidden.back().size();
  }
  if (hidden_tokens * 2 > static_cast<size_t>(total)) {
    return Status::InvalidArgument(
        StrFormat("%zu needles take %zu of %d tokens; accepted: at most half", needles.size(), hidden_tokens, total));
  }
  const size_t body_tokens = static_cast<size_t>(total) - hidden_tokens;
  if (body.size() < body_tokens) {
    return Status::InvalidArgument(StrFormat("%s: %zu tokens are too few for %d; accepted: up to %zu, or a longer text",
                                             std::string(text_name).c_str(), body.size(), total,
                                             body.size() + hidden_tokens));
  }
  std::vector<int> tokens;
  size_t taken = 0;
  const auto take_until = [&](size_t end) {
    tokens.insert(tokens.end(), body.begin() + static_cast<ptrdiff_t>(taken),
                  body.begin() + static_cast<ptrdiff_t>(end));
    taken = end;
  };
  for (size_t i = 0; i < needles.size(); ++i) {
    // At least the BOS token stays in front.
    take_until(std::max<size_t>(1, static_cast<size_t>(depths[i] * static_cast<double>(body_tokens))));
    tokens.insert(tokens.end(), hidden[i].begin(), hidden[i].end());
  }
  take_until(body_tokens);
  return tokens;
}

Result<std::string> AskNeedle(Runner& runner, const Needle& needle) {
  const int64_t held = runner.num_tokens();
  KVANT_TRY(runner.Decode(runner.Tokenize("\n" + needle.question, false), false));
  Result<std::string> digits = GenerateDigits(runner);
  KVANT_TRY(runner.Truncate(held));
  return digits;
}

Result<int> CountNeedles(Runner& runner, std::span<const Needle> needles) {
  int right = 0;
  for (const Needle& needle : needles) {
    const Result<std::string> digits = AskNeedle(runner, needle);
    if (!digits.ok()) return digits.status();
    right += *digits == needle.answer;
  }
  return right;
}

}  // namespace kvant
