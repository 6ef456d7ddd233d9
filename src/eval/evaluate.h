// Compares caches with fp16: on one text (text_run.h), and in the tasks that are asked for (task.h).
//
// Whatever was measured is kept at once, under a key of everything that it depends on. A run takes from there what it
// finds and measures the rest; the fp16 cache then runs again where others are compared with its logits or rows.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eval/report.h"
#include "eval/result_cache.h"
#include "eval/task.h"
#include "eval/text_run.h"
#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

struct EvaluateOptions {
  std::string model_path;
  std::string model_hash;           ///< Runner::HashModel
  std::string kvant_version;        ///< of this program
  std::vector<std::string> caches;  ///< besides "f16", which always runs
  TextOptions text = {};
  DeviceInfo device = {.name = "auto", .description = ""};  ///< of Runner::FindDevice
  int threads = 2;
  size_t memory_limit_bytes = 0;  ///< of the cache; 0: none
  std::shared_ptr<const Calibration> maybe_calibration = nullptr;
  std::vector<std::shared_ptr<Task>> tasks = {};  ///< beside the text, in the order of the report's columns
  ResultCache results = {};                       ///< of earlier runs; the default keeps nothing
};

/// `stage` names the cache at work, and the task; `done` of `total` steps of it are through.
using EvaluateProgress = std::function<void(std::string_view stage, int64_t done, int64_t total)>;

/// Opens every cache of which something is missing once before any work, so that a wrong option ends the evaluation at its
/// start. Errors: InvalidArgument (options, text too short), those of `open`, of the runner and of the result cache.
Result<Report> Evaluate(const EvaluateOptions& options, std::string_view text, const OpenRunner& open,
                        const EvaluateProgress& progress);

}  // namespace kvant
