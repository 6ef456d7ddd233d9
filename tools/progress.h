// A progress bar on the standard error, on a terminal only.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

namespace kvant {

/// One line, redrawn in place at most ten times a second and erased at the end. Silent when the standard
/// error is no terminal.
class Progress {
 public:
  Progress();
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Show(std::string_view stage, int64_t done, int64_t total);
  /// Erases the line, so that something else can be printed.
  void Clear();

 private:
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace kvant
