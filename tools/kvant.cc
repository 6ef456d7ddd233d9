// kvant: the command line. Parses, runs one verb and turns its Status into an exit code.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "verb.h"

namespace kvant {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

using AddVerb = Verb (*)(CLI::App& app);
constexpr AddVerb kVerbs[] = {AddRunVerb, AddEvalVerb, AddInspectVerb, AddCodecsVerb,
                              AddBenchVerb};

int Fail(std::string message, int exit_code) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "kvant: error: %s\n", message.c_str());
  return exit_code;
}

std::string VerbNames(const std::vector<Verb>& verbs) {
  std::string names;
  for (const Verb& verb : verbs) names += (names.empty() ? "" : ", ") + verb.command->get_name();
  return names;
}

int Run(const Verb& verb) {
  const Status status = verb.run();
  if (!status.ok()) {
    return Fail(status.message(), status.code() == StatusCode::kInvalidArgument ? kUsage : kFailed);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return Fail("writing to the standard output failed", kFailed);
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("Compressed key/value caches for language models: run them, and see what they cost.", "kvant");
  app.set_version_flag("--version", "kvant " KVANT_VERSION);
  app.require_subcommand(1);
  std::vector<Verb> verbs;
  for (AddVerb add : kVerbs) verbs.push_back(add(app));
  if (argc < 2)
    return Fail("no verb; accepted: " + VerbNames(verbs) + " (kvant --help explains them)", kUsage);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    const bool has_verb = !app.get_subcommands().empty();
    const std::string accepted = has_verb
                                     ? "see kvant " + app.get_subcommands().front()->get_name() + " --help"
                                     : "accepted verbs: " + VerbNames(verbs);
    return Fail(std::string(error.what()) + "; " + accepted, kUsage);
  }
  const auto chosen =
      std::find_if(verbs.begin(), verbs.end(), [](const Verb& v) { return v.command->parsed(); });
  return Run(*chosen);
}

}  // namespace
}  // namespace kvant

int main(int argc, char** argv) { return kvant::Main(argc, argv); }
