// The verbs of the command line. Each lies in cmd_<verb>.cc; the table is in command_line.cc.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "kvant/status.h"

namespace kvant {

/// A command that works as it stands, given the files that it names.
struct Example {
  std::string command;  ///< as typed into a shell: "kvant inspect model.gguf --memory 8G"
  std::string what;     ///< what it does, in a few words
};

/// A subcommand and what it does once its options are parsed. InvalidArgument means that the command line has
/// to change (exit code 2); any other error is a failure (exit code 1).
struct Verb {
  CLI::App* command = nullptr;
  std::function<Status()> run = {};
  std::vector<Example> examples = {};  ///< 2 to 4, for --help and the man page; a test parses them
};

// Names of values, for CLI::Option::type_name. Completions offer what fits.
inline constexpr const char* kFileValue = "FILE";
inline constexpr const char* kModelValue = "GGUF";   ///< a model's file
inline constexpr const char* kCacheValue = "CACHE";  ///< a preset, a scheme, a plan file, or a list of them
inline constexpr const char* kSizeValue = "SIZE";    ///< of memory: 8G, 500MB

/// Adds the verb with its options to `app`.
Verb AddRunVerb(CLI::App& app);
Verb AddEvalVerb(CLI::App& app);
Verb AddCalibrateVerb(CLI::App& app);
Verb AddTuneVerb(CLI::App& app);
Verb AddInspectVerb(CLI::App& app);
Verb AddReportVerb(CLI::App& app);
Verb AddCodecsVerb(CLI::App& app);
Verb AddBenchVerb(CLI::App& app);
/// These describe the whole command line: `verbs` is complete when they run.
Verb AddCompletionVerb(CLI::App& app);
Verb AddManVerb(CLI::App& app, const std::vector<Verb>& verbs);

}  // namespace kvant
