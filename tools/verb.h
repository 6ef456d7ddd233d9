// The verbs of the command line. Each lies in cmd_<verb>.cc; the table is in kvant.cc.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "kvant/status.h"

namespace kvant {

/// A subcommand and what it does once its options are parsed. InvalidArgument means that the command line has
/// to change (exit code 2); any other error is a failure (exit code 1).
struct Verb {
  CLI::App* command = nullptr;
  std::function<Status()> run;
};

/// Adds the verb with its options to `app`.
Verb AddRunVerb(CLI::App& app);
Verb AddEvalVerb(CLI::App& app);
Verb AddCalibrateVerb(CLI::App& app);
Verb AddTuneVerb(CLI::App& app);
Verb AddInspectVerb(CLI::App& app);
Verb AddCodecsVerb(CLI::App& app);
Verb AddBenchVerb(CLI::App& app);

}  // namespace kvant
