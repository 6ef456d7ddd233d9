// kvant: the command line. Parses, runs one verb and turns its Status into an exit code.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "command_line.h"

namespace kvant {
namespace {

int Fail(std::string message, int exit_code) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  PrintError(message);
  return exit_code;
}

std::string Accepted(const CommandLine& line) {
  return "accepted: " + line.VerbNames() + " (kvant --help explains them)";
}

// What the environment asks for, on top of what the options do.
Status ApplySettings(TerminalSettings settings) {
  if (const char* level = std::getenv("KVANT_LOG"); level != nullptr && *level != '\0') {
    const Result<LogLevel> parsed = ParseLogLevel(level);
    if (!parsed.ok()) return parsed.status();
    settings.log = *parsed;
  }
  SetTerminal(settings);
  if (settings.log != LogLevel::kNone) Runner::SetLog(Log);
  return Status::Ok();
}

int Run(const Verb& verb, const TerminalSettings& settings) {
  Status status = ApplySettings(settings);
  if (status.ok()) status = verb.run();
  if (!status.ok()) {
    return Fail(status.message(), status.code() == StatusCode::kInvalidArgument ? kExitUsage : kExitFailed);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return Fail("writing to the standard output failed", kExitFailed);
  return kExitOk;
}

int Main(int argc, char** argv) {
  CommandLine line;
  if (argc < 2) return Fail("no verb; " + Accepted(line), kExitUsage);
  // CLI11 would not name it.
  if (argv[1][0] != '-' && line.Find(argv[1]) == nullptr) {
    return Fail("unknown verb '" + std::string(argv[1]) + "'; " + Accepted(line), kExitUsage);
  }
  try {
    line.app().parse(argc, argv);
  } catch (const CLI::Success& help) {
    return line.app().exit(help);
  } catch (const CLI::ParseError& error) {
    const auto parsed = line.app().get_subcommands();
    const std::string help = parsed.empty() ? Accepted(line) : "see kvant " + parsed.front()->get_name() + " --help";
    return Fail(std::string(error.what()) + "; " + help, kExitUsage);
  }
  return Run(*line.Find(line.app().get_subcommands().front()->get_name()), line.terminal());
}

}  // namespace
}  // namespace kvant

int main(int argc, char** argv) { return kvant::Main(argc, argv); }
