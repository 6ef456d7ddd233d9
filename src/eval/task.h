// A measurement of a cache beside the text itself: how it is called, what its result depends on, how it runs.
//
// Each task is one file pair that makes a Task; the command line has the table of them (tools/eval_tasks.cc).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

using OpenRunner = std::function<Result<std::unique_ptr<Runner>>(const RunnerOptions&)>;

/// One cache that a task is to measure.
struct TaskRun {
  RunnerOptions options;  ///< model and cache; context and sequences are the task's to choose
  const OpenRunner& open;
  bool is_reference = false;  ///< the fp16 cache
  std::function<void(int64_t done, int64_t total)> progress;

  /// The model with this cache and nothing in it, room for `context` tokens in each of `sequences`.
  Result<std::unique_ptr<Runner>> Open(int context, int sequences = 1) const;
};

struct TaskInfo {
  std::string_view name;         ///< on the command line: "needle-grid"
  std::string_view place;        ///< of its result in a row of the report, a JSON pointer: "/tasks/needle_grid"
  std::string_view column;       ///< header of its column in tables
  bool needs_reference = false;  ///< compares other caches with what its run of the reference has kept
};

class Task {
 public:
  virtual ~Task() = default;
  virtual const TaskInfo& info() const = 0;
  /// Everything that results depend on beside program, model, cache and machine; the text by its hash.
  virtual nlohmann::json options() const = 0;
  /// Once before any run; `model` has the tokens. Errors: InvalidArgument for what does not fit the model or the text.
  virtual Status Prepare(const Runner& model) = 0;
  /// The result as it stands in the report; null: this cache cannot be measured so. With needs_reference the reference is
  /// run before all others. Errors: those of the runner.
  virtual Result<nlohmann::json> Run(const TaskRun& run) = 0;
  /// A result that is not null, in the few characters of a table's cell. Throws nlohmann::json::exception for anything that
  /// Run does not make: results come back from files.
  virtual std::string Show(const nlohmann::json& result) const = 0;
};

/// {"right", "asked", "low", "high"}: a share with its 95 % interval. REQUIRES: asked > 0
nlohmann::json ShareJson(int64_t right, int64_t asked);
/// "31/50"
std::string ShowShare(const nlohmann::json& share);

/// 32 hexadecimal digits that name a text.
std::string HashText(std::string_view text);

/// InvalidArgument, with what is accepted, unless a context of `tokens` fits the model. `what` names the option.
Status CheckContext(const Runner& model, const char* what, int tokens);

}  // namespace kvant
