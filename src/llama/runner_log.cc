#include "llama/runner_log.h"

#include <mutex>

#include "llama.h"
#include "llama/runner.h"

namespace kvant {
namespace {

thread_local LogCapture* innermost = nullptr;

// Makes lines of the pieces that libllama logs.
class LineSink {
 public:
  void Set(LogSink sink) {
    const std::lock_guard lock(mutex_);
    sink_ = std::move(sink);
  }
  void Add(ggml_log_level level, std::string_view text) {
    const std::lock_guard lock(mutex_);
    if (!sink_) return;
    if (level != GGML_LOG_LEVEL_CONT) level_ = LevelOf(level);
    line_ += text;
    for (size_t end = 0; (end = line_.find('\n')) != std::string::npos; line_.erase(0, end + 1)) {
      sink_(level_, std::string_view(line_).substr(0, end));
    }
  }

 private:
  static LogLevel LevelOf(ggml_log_level level) {
    if (level == GGML_LOG_LEVEL_ERROR) return LogLevel::kError;
    if (level == GGML_LOG_LEVEL_WARN) return LogLevel::kWarn;
    return level == GGML_LOG_LEVEL_INFO ? LogLevel::kInfo : LogLevel::kDebug;
  }

  std::mutex mutex_;
  LogSink sink_;
  LogLevel level_ = LogLevel::kDebug;
  std::string line_;
};

LineSink& Lines() {
  static LineSink& lines = *new LineSink;  // libllama may log while the process ends
  return lines;
}

void Callback(ggml_log_level level, const char* text, void*) {
  if (innermost != nullptr && level == GGML_LOG_LEVEL_ERROR) innermost->Add(text);
  Lines().Add(level, text);
}

void CatchLog() {
  static std::once_flag once;
  std::call_once(once, [] { llama_log_set(Callback, nullptr); });
}

}  // namespace

void Runner::SetLog(LogSink sink) {
  Lines().Set(std::move(sink));
  CatchLog();
}

LogCapture::LogCapture() : outer_(innermost) {
  CatchLog();
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
