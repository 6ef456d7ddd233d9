// Errors on their way out of ggml's C functions, which can only say "failed": remembered, and told to the host's log.
#pragma once

#include <mutex>

#include "kvant/status.h"

namespace kvant {

/// Thread-safe.
class ErrorLog {
 public:
  /// Remembers the error and hands its line to ggml's log, where the host decides what is printed.
  void Report(const Status& status);
  Status last() const;
  void Clear();

 private:
  mutable std::mutex mutex_;
  Status last_;
};

}  // namespace kvant
