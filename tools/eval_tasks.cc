#include "eval_tasks.h"

#include <algorithm>
#include <array>

#include "base/join.h"
#include "eval/attention_error.h"
#include "eval/context_shift.h"
#include "eval/drift.h"
#include "eval/last_word.h"
#include "eval/needle_grid.h"
#include "eval/questions.h"
#include "eval/sequences.h"
#include "eval/speed.h"
#include "eval/tool_calls.h"
#include "text_input.h"
#include "verb.h"

namespace kvant {
namespace {

constexpr const char* kGroup = "Tasks";
constexpr const char* kAll = "all";

struct Inputs {
  const EvalTaskOptions& options;
  const EvaluateOptions& evaluate;
  std::string_view text;
};
using Made = Result<std::unique_ptr<Task>>;

// Ascending, without repetitions; the default follows the length of the text.
std::vector<int> Lengths(std::vector<int> lengths, int tokens) {
  if (lengths.empty()) lengths = {tokens / 4, tokens / 2, tokens};
  std::ranges::sort(lengths);
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

Made NeedleGrid(const Inputs& in) {
  const EvalTaskOptions& o = in.options;
  return MakeNeedleGrid({.lengths = Lengths(o.grid_lengths, in.evaluate.text.tokens),
                         .depths = o.grid_depths,
                         .needles = o.grid_needles,
                         .seed = in.evaluate.text.seed},
                        in.text, in.evaluate.text.name);
}

// `make` from the text of a file that `option` has to name.
Made FromFile(const std::string& path, const char* option, Made (*make)(std::string_view, std::string)) {
  if (path.empty()) return Status::InvalidArgument(std::string("the task needs a file: ") + option + " FILE");
  const Result<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  return make(*text, path);
}

Made LastWord(const Inputs& in) { return FromFile(in.options.last_word, "--last-word", MakeLastWord); }
Made Questions(const Inputs& in) { return FromFile(in.options.questions, "--questions", MakeQuestions); }
Made ToolCalls(const Inputs& in) {
  if (in.options.tool_calls.empty()) return MakeBuiltInToolCalls();
  return FromFile(in.options.tool_calls, "--tool-calls", MakeToolCalls);
}
Made Drift(const Inputs& in) { return MakeDrift({.tokens = in.options.drift_tokens}, in.text, in.evaluate.text.name); }
Made Sequences(const Inputs& in) { return MakeSequences({}, in.text, in.evaluate.text.name); }
Made ContextShift(const Inputs& in) { return MakeContextShift({}, in.text, in.evaluate.text.name); }
Made AttentionError(const Inputs& in) { return MakeAttentionError({}, in.text, in.evaluate.text.name); }
Made Speed(const Inputs& in) {
  return MakeSpeed({.lengths = Lengths(in.options.speed_at, in.evaluate.text.tokens)}, in.text);
}

struct TaskRow {
  const char* name;
  bool (*is_given)(const EvalTaskOptions&);  ///< by an option of its own
  bool in_all;                               ///< without that
  Made (*make)(const Inputs&);
};
constexpr std::array kTasks = {
    TaskRow{"needle-grid", [](const EvalTaskOptions& o) { return !o.grid_lengths.empty(); }, true, NeedleGrid},
    TaskRow{"last-word", [](const EvalTaskOptions& o) { return !o.last_word.empty(); }, false, LastWord},
    TaskRow{"questions", [](const EvalTaskOptions& o) { return !o.questions.empty(); }, false, Questions},
    TaskRow{"tool-calls", [](const EvalTaskOptions& o) { return !o.tool_calls.empty(); }, true, ToolCalls},
    TaskRow{"drift", [](const EvalTaskOptions&) { return false; }, true, Drift},
    TaskRow{"sequences", [](const EvalTaskOptions&) { return false; }, true, Sequences},
    TaskRow{"context-shift", [](const EvalTaskOptions&) { return false; }, true, ContextShift},
    TaskRow{"attention-error", [](const EvalTaskOptions&) { return false; }, true, AttentionError},
    TaskRow{"speed", [](const EvalTaskOptions& o) { return !o.speed_at.empty(); }, true, Speed},
};

bool IsWanted(const TaskRow& row, const EvalTaskOptions& options) {
  const auto named = [&](const char* name) { return std::ranges::find(options.names, name) != options.names.end(); };
  return row.is_given(options) || named(row.name) || (row.in_all && named(kAll));
}

std::vector<std::string> TaskNames() {
  std::vector<std::string> names;
  for (const TaskRow& row : kTasks) names.emplace_back(row.name);
  names.emplace_back(kAll);
  return names;
}

}  // namespace

void AddEvalTaskOptions(CLI::App& command, EvalTaskOptions& o) {
  const auto add = [&](const char* name, auto& value, const std::string& help) {
    return command.add_option(name, value, help)->group(kGroup);
  };
  const std::vector<std::string> names = TaskNames();
  add("--tasks", o.names,
      "Further measurements, with commas between them: " + Join(names, std::identity()) +
          " (those that need no file). None unless asked for")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember(names).description(""));
  const auto lengths = [&](const char* name, std::vector<int>& value, const char* help) {
    add(name, value, help)
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Range(64, 1 << 24).description("LENGTH,..."));
  };
  lengths("--grid-lengths", o.grid_lengths, "needle-grid: tokens of text. Without it: 1/4, 1/2 and all of --tokens");
  add("--grid-depths", o.grid_depths, "needle-grid: depths")->check(CLI::Range(1, 100))->capture_default_str();
  add("--grid-needles", o.grid_needles, "needle-grid: needles per length and depth")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  add("--last-word", o.last_word, "last-word: file with a passage per line, whose last word is asked")
      ->type_name(kFileValue);
  add("--questions", o.questions, "questions: file with {\"prompt\": text, \"answer\": text} per line")
      ->type_name(kFileValue);
  add("--tool-calls", o.tool_calls,
      "tool-calls: file with {\"prompt\": text, \"tools\": [{\"name\": text, \"parameters\": {name: type}}]} per line. "
      "Without it: a few built-in ones")
      ->type_name(kFileValue);
  add("--drift-tokens", o.drift_tokens, "drift: tokens generated after each prompt")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  lengths("--speed-at", o.speed_at, "speed: tokens in the cache. Without it: 1/4, 1/2 and all of --tokens");
}

Result<std::vector<std::shared_ptr<Task>>> MakeEvalTasks(const EvalTaskOptions& options,
                                                         const EvaluateOptions& evaluate, std::string_view text) {
  std::vector<std::shared_ptr<Task>> tasks;
  for (const TaskRow& row : kTasks) {
    if (!IsWanted(row, options)) continue;
    Made task = row.make({options, evaluate, text});
    if (!task.ok()) return Status(task.status().code(), std::string(row.name) + ": " + task.status().message());
    tasks.push_back(std::move(*task));
  }
  return tasks;
}

}  // namespace kvant
