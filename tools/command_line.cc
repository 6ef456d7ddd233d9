#include "command_line.h"

#include <algorithm>
#include <map>

#include "base/join.h"
#include "help_formatter.h"

namespace kvant {
namespace {

using AddVerb = Verb (*)(CLI::App& app);
constexpr AddVerb kVerbs[] = {AddRunVerb,    AddEvalVerb,   AddCalibrateVerb, AddTuneVerb,      AddInspectVerb,
                              AddReportVerb, AddCodecsVerb, AddBenchVerb,     AddCompletionVerb};

const std::map<std::string, ProgressForm> kForms = {{"auto", ProgressForm::kAuto},
                                                    {"bar", ProgressForm::kBar},
                                                    {"json", ProgressForm::kJson},
                                                    {"none", ProgressForm::kNone}};

std::string ExampleText(const std::vector<Example>& examples) {
  std::string text = "Examples:\n";
  for (const Example& example : examples) text += "  # " + example.what + "\n  " + example.command + "\n";
  return text;
}

std::string MeaningText(const std::string& title, const std::vector<Meaning>& meanings) {
  std::string text = title + ":\n";
  for (const Meaning& m : meanings) text += HelpEntry(m.term, m.text);
  return text;
}

}  // namespace

const std::vector<Meaning>& ExitCodes() {
  static const std::vector<Meaning> codes = {
      {"0", "success"},
      {"1", "the work failed: a file, the model, memory"},
      {"2", "the command line has to change: an unknown verb, option or value"},
      {"128+N", "ended by signal N: 130 after Ctrl-C; result files are then as they were before"}};
  return codes;
}

const std::vector<Meaning>& EnvironmentVariables() {
  static const std::vector<Meaning> variables = {
      {"KVANT_LOG",
       "what is logged to the standard error, libllama's log included: none (default), error, warn, info, debug"},
      {"NO_COLOR", "if not empty: no colours; there are none anyway where the standard error is no terminal"},
      {"TMPDIR", "where kvant eval keeps the logits of the reference"},
      {"KVANT_FORCE_TARGET", "use the kernels of one SIMD target (AVX2, SCALAR, ...) instead of the best"}};
  return variables;
}

CommandLine::CommandLine()
    : app_("Compressed key/value caches for language models: run them, and see what they cost.", "kvant") {
  app_.set_version_flag("--version", "kvant " KVANT_VERSION);
  app_.require_subcommand(1);
  app_.formatter(std::make_shared<HelpFormatter>());  // of the verbs too
  AddOutputOptions(app_);
  for (AddVerb add : kVerbs) verbs_.push_back(add(app_));
  verbs_.push_back(AddManVerb(app_, verbs_));
  for (const Verb& verb : verbs_) {
    AddOutputOptions(*verb.command);
    for (CLI::App* child : verb.command->get_subcommands({})) AddOutputOptions(*child);
    if (!verb.examples.empty()) verb.command->footer(ExampleText(verb.examples));
  }
  app_.footer("kvant VERB --help explains a verb, with examples.\n\n" + MeaningText("Exit codes", ExitCodes()) + "\n" +
              MeaningText("Environment", EnvironmentVariables()));
}

void CommandLine::AddOutputOptions(CLI::App& command) {
  constexpr const char* kGroup = "Messages";
  command.add_flag("-q,--quiet", terminal_.quiet, "Nothing on the standard error but errors, and what is asked for")
      ->group(kGroup);
  command
      .add_option(
          "--progress", terminal_.progress,
          "How far the work is, on the standard error: a bar, JSON lines (stage, done, total, seconds), nothing; "
          "auto: a bar on a terminal")
      ->transform(CLI::CheckedTransformer(kForms).description("{auto,bar,json,none}"))
      ->option_text("{auto,bar,json,none}")
      ->type_name("FORM")
      ->group(kGroup);
}

const Verb* CommandLine::Find(std::string_view name) const {
  const auto found = std::ranges::find_if(verbs_, [&](const Verb& v) { return v.command->get_name() == name; });
  return found == verbs_.end() ? nullptr : &*found;
}

std::string CommandLine::VerbNames() const {
  return Join(verbs_, [](const Verb& verb) { return verb.command->get_name(); });
}

}  // namespace kvant
