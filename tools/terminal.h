// What the command line says on the standard error beside its results: notes, log lines, colours.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "llama/runner.h"

namespace kvant {

/// How progress is shown. kAuto: a bar on a terminal, else nothing.
enum class ProgressForm { kAuto, kBar, kJson, kNone };

/// Set once, before a verb runs.
struct TerminalSettings {
  bool quiet = false;  ///< no notes, and no bar but one that was asked for
  ProgressForm progress = ProgressForm::kAuto;
  LogLevel log = LogLevel::kNone;
};
void SetTerminal(const TerminalSettings& settings);
const TerminalSettings& Terminal();

/// Whether escape codes may be written to `file`: a terminal that is not "dumb", and NO_COLOR (no-color.org) is not set.
bool HasColors(std::FILE* file);

/// "kvant: text" on the standard error, unless --quiet.
__attribute__((format(printf, 1, 2))) void Note(const char* format, ...);
/// "kvant: error: text", always.
void PrintError(std::string_view text);
/// "[info] text", when KVANT_LOG asks for this level.
void Log(LogLevel level, std::string_view text);

/// "warn" -> kWarn. Errors: InvalidArgument naming the levels.
Result<LogLevel> ParseLogLevel(std::string_view name);

/// A line that is redrawn in place until something else is printed.
void DrawBar(const std::string& bar);
void EraseBar();

}  // namespace kvant
