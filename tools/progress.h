// How far long work has come, on the standard error: a bar for people, JSON lines for programs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "terminal.h"

namespace kvant {

/// A bar: one line, redrawn in place at most ten times a second and erased at the end. JSON: a line
/// {"stage": ..., "done": ..., "total": ..., "seconds": ...} as often, and always the last of a stage; `seconds` since the
/// stage began. Which of them, if any: --progress.
class Progress {
 public:
  Progress();
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Show(std::string_view stage, int64_t done, int64_t total);
  /// Erases the bar, so that something else can be printed; writes the JSON line that is due.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  void Draw() const;
  void WriteJson();

  ProgressForm form_;
  std::string stage_;
  int64_t done_ = 0, total_ = 0;
  bool due_ = false;  ///< the state at hand is not written yet
  Clock::time_point stage_began_{};
  Clock::time_point last_{};
};

}  // namespace kvant
