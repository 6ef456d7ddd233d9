#include "llama/runner_log.h"

#include <mutex>

#include "llama.h"

namespace kvant {
namespace {

thread_local LogCapture* innermost = nullptr;

void Callback(ggml_log_level level, const char* text, void*) {
  if (innermost != nullptr && level == GGML_LOG_LEVEL_ERROR) innermost->Add(text);
}

}  // namespace

LogCapture::LogCapture() : outer_(innermost) {
  static std::once_flag once;
  std::call_once(once, [] { llama_log_set(Callback, nullptr); });
  innermost = this;
}

LogCapture::~LogCapture() { innermost = outer_; }

std::string LogCapture::Reason() const {
  if (errors_.empty()) return "";
  // libllama's last word on a model; what comes before are details, after it a repetition.
  constexpr std::string_view kModel = "error loading model: ";
  std::string reason = errors_.front();
  for (const std::string& line : errors_) {
    if (line.find(kModel) != std::string::npos) reason = line.substr(line.find(kModel) + kModel.size());
  }
  while (!reason.empty() && reason.back() == '\n') reason.pop_back();
  const size_t colon = reason.find(": ");
  const bool is_function = colon != std::string::npos && reason.find(' ') == colon + 1;
  return is_function ? reason.substr(colon + 2) : reason;
}

}  // namespace kvant
