#include "eval/item_task.h"

#include <algorithm>

namespace kvant {

Status ItemTask::Prepare(const Runner& model) {
  for (size_t i = 0; i < num_items(); ++i) context_ = std::max(context_, PrepareItem(model, i));
  return CheckContext(model, name_.c_str(), context_);
}

Result<nlohmann::json> ItemTask::Run(const TaskRun& run) {
  const auto runner = run.Open(context_);
  if (!runner.ok()) return runner.status();
  int64_t right = 0;
  for (size_t i = 0; i < num_items(); ++i) {
    KVANT_TRY((*runner)->Truncate(0));
    const Result<bool> is_right = IsRight(**runner, i);
    if (!is_right.ok()) return is_right.status();
    right += *is_right;
    run.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(num_items()));
  }
  return ShareJson(right, static_cast<int64_t>(num_items()));
}

}  // namespace kvant
