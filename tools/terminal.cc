#include "terminal.h"

#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdlib>
#include <mutex>

namespace kvant {
namespace {

constexpr std::array<const char*, 5> kLevelNames = {"none", "error", "warn", "info", "debug"};

TerminalSettings settings_of_process;
bool bar_drawn = false;
std::mutex mutex;  // libllama logs from threads of its own

void EraseBarLocked() {
  if (!bar_drawn) return;
  std::fputs("\r\033[K", stderr);
  bar_drawn = false;
}

void PrintLine(std::string_view line) {
  const std::lock_guard lock(mutex);
  EraseBarLocked();
  std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  std::fflush(stderr);
}

}  // namespace

void SetTerminal(const TerminalSettings& settings) { settings_of_process = settings; }
const TerminalSettings& Terminal() { return settings_of_process; }

bool HasColors(std::FILE* file) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (no_color != nullptr && *no_color != '\0') return false;
  return isatty(fileno(file)) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

void Note(const char* format, ...) {
  if (settings_of_process.quiet) return;
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  std::string text(static_cast<size_t>(std::vsnprintf(nullptr, 0, format, arguments)) + 1, '\0');
  std::vsnprintf(text.data(), text.size(), format, again);
  va_end(again);
  va_end(arguments);
  text.pop_back();
  PrintLine("kvant: " + text);
}

void PrintError(std::string_view text) {
  const bool colors = HasColors(stderr);
  PrintLine(std::string("kvant: ") + (colors ? "\033[1;31merror:\033[0m " : "error: ") + std::string(text));
}

void Log(LogLevel level, std::string_view text) {
  if (level > settings_of_process.log || level == LogLevel::kNone) return;
  PrintLine(std::string("[") + kLevelNames[static_cast<size_t>(level)] + "] " + std::string(text));
}

Result<LogLevel> ParseLogLevel(std::string_view name) {
  for (size_t i = 0; i < kLevelNames.size(); ++i) {
    if (name == kLevelNames[i]) return static_cast<LogLevel>(i);
  }
  return Status::InvalidArgument("KVANT_LOG '" + std::string(name) + "'; accepted: none, error, warn, info, debug");
}

void DrawBar(const std::string& bar) {
  const std::lock_guard lock(mutex);
  std::fprintf(stderr, "\r\033[K%s", bar.c_str());
  std::fflush(stderr);
  bar_drawn = true;
}

void EraseBar() {
  const std::lock_guard lock(mutex);
  EraseBarLocked();
  std::fflush(stderr);
}

}  // namespace kvant
