// A task that asks one item of a file after another and counts the right answers.
#pragma once

#include <string>

#include "eval/task.h"

namespace kvant {

class ItemTask : public Task {
 public:
  const TaskInfo& info() const override { return info_; }
  nlohmann::json options() const override { return {{kind_, hash_}}; }
  Status Prepare(const Runner& model) override;
  Result<nlohmann::json> Run(const TaskRun& run) override;
  std::string Show(const nlohmann::json& result) const override { return ShowShare(result); }

 protected:
  /// `kind`: what the items are called in options(). `hash`: of the file, `name`: what messages call it.
  ItemTask(const TaskInfo& info, const char* kind, std::string hash, std::string name)
      : info_(info), kind_(kind), hash_(std::move(hash)), name_(std::move(name)) {}

  virtual size_t num_items() const = 0;
  /// Tokens that item i takes, its answer included; called once for each item before any is asked.
  virtual int PrepareItem(const Runner& model, size_t i) = 0;
  /// `runner` holds no tokens.
  virtual Result<bool> IsRight(Runner& runner, size_t i) const = 0;

 private:
  const TaskInfo info_;
  const char* const kind_;
  const std::string hash_;
  const std::string name_;
  int context_ = 0;  ///< of the longest item
};

}  // namespace kvant
