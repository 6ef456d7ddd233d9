// kvant: the command line. Parses, runs one verb and turns its Status into an exit code.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "base/join.h"
#include "verb.h"

namespace kvant {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

using AddVerb = Verb (*)(CLI::App& app);
constexpr AddVerb kVerbs[] = {AddRunVerb,     AddEvalVerb,   AddCalibrateVerb, AddTuneVerb,
                              AddInspectVerb, AddCodecsVerb, AddBenchVerb};

int Fail(std::string message, int exit_code) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "kvant: error: %s\n", message.c_str());
  return exit_code;
}

std::string Accepted(const std::vector<Verb>& verbs) {
  const std::string names = Join(verbs, [](const Verb& verb) { return verb.command->get_name(); });
  return "accepted: " + names + " (kvant --help explains them)";
}

bool IsVerb(const std::vector<Verb>& verbs, std::string_view name) {
  return std::any_of(verbs.begin(), verbs.end(), [&](const Verb& verb) { return verb.command->get_name() == name; });
}

int Run(const Verb& verb) {
  const Status status = verb.run();
  if (!status.ok()) {
    return Fail(status.message(), status.code() == StatusCode::kInvalidArgument ? kUsage : kFailed);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return Fail("writing to the standard output failed", kFailed);
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("Compressed key/value caches for language models: run them, and see what they cost.", "kvant");
  app.set_version_flag("--version", "kvant " KVANT_VERSION);
  app.require_subcommand(1);
  std::vector<Verb> verbs;
  for (AddVerb add : kVerbs) verbs.push_back(add(app));
  if (argc < 2) return Fail("no verb; " + Accepted(verbs), kUsage);
  // CLI11 would not name it.
  if (argv[1][0] != '-' && !IsVerb(verbs, argv[1])) {
    return Fail("unknown verb '" + std::string(argv[1]) + "'; " + Accepted(verbs), kUsage);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    const auto parsed = app.get_subcommands();
    const std::string help = parsed.empty() ? Accepted(verbs) : "see kvant " + parsed.front()->get_name() + " --help";
    return Fail(std::string(error.what()) + "; " + help, kUsage);
  }
  const auto chosen = std::find_if(verbs.begin(), verbs.end(), [](const Verb& v) { return v.command->parsed(); });
  return Run(*chosen);
}

}  // namespace
}  // namespace kvant

int main(int argc, char** argv) { return kvant::Main(argc, argv); }
