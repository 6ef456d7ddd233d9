// The whole command line: `kvant` with its verbs, and the options that all of them have.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "terminal.h"
#include "verb.h"

namespace kvant {

/// Not copyable: options write into it.
class CommandLine {
 public:
  CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  CLI::App& app() { return app_; }
  const std::vector<Verb>& verbs() const { return verbs_; }
  const Verb* Find(std::string_view name) const;  ///< null: no such verb
  /// "run, eval, ..."
  std::string VerbNames() const;

  /// Of --quiet and --progress; valid after parsing.
  const TerminalSettings& terminal() const { return terminal_; }

 private:
  void AddOutputOptions(CLI::App& command);

  CLI::App app_;
  std::vector<Verb> verbs_;
  TerminalSettings terminal_;
};

// The exit codes of all verbs.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

/// What --help and the man page say about them.
struct Meaning {
  std::string term;
  std::string text;
};
const std::vector<Meaning>& ExitCodes();
/// The variables that the command line reads.
const std::vector<Meaning>& EnvironmentVariables();

}  // namespace kvant
