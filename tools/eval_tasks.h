// The tasks of `kvant eval`: their options, and the table that makes them.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eval/evaluate.h"
#include "eval/task.h"

namespace kvant {

struct EvalTaskOptions {
  std::vector<std::string> names;  ///< of --tasks
  std::vector<int> grid_lengths;   ///< empty: a quarter, half and all of the text's tokens
  int grid_depths = 5;
  int grid_needles = 3;
  std::string last_word;   ///< file; empty: not given
  std::string questions;   ///< the same
  std::string tool_calls;  ///< the same; then the built-in prompts
  int drift_tokens = 256;
  std::vector<int> speed_at;  ///< as grid_lengths
};

/// Adds --tasks and the options of single tasks.
void AddEvalTaskOptions(CLI::App& command, EvalTaskOptions& options);

/// The tasks that were asked for, by name or by an option of theirs, in the order of the table. `text` has to outlive them.
/// Errors: those of reading files and of making the tasks; InvalidArgument for a task without its file.
Result<std::vector<std::shared_ptr<Task>>> MakeEvalTasks(const EvalTaskOptions& options,
                                                         const EvaluateOptions& evaluate, std::string_view text);

}  // namespace kvant
