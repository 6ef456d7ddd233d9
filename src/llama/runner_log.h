// libllama's log, caught instead of printed: the library says what went wrong there and nowhere else.
#pragma once

#include <string>
#include <vector>

namespace kvant {

/// Collects the errors that libllama and ggml log on this thread while it lives. Captures may nest; the innermost
/// gets the lines. From the first capture on nothing of libllama's log is printed any more in this process, but by the
/// sink of Runner::SetLog.
class LogCapture {
 public:
  LogCapture();
  ~LogCapture();
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  /// The line that says why, without the name of the function that wrote it; empty when there was no error.
  std::string Reason() const;

  /// For the callback.
  void Add(const char* text) { errors_.emplace_back(text); }

 private:
  LogCapture* const outer_;
  std::vector<std::string> errors_;
};

}  // namespace kvant
