#include "man_page.h"

#include "base/join.h"
#include "kvant/scheme.h"

namespace kvant {
namespace {

// Text as roff prints it: no escapes, no requests at the start of a line, hyphens that can be copied.
std::string Roff(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if ((c == '.' || c == '\'') && (escaped.empty() || escaped.back() == '\n')) escaped += "\\&";
    if (c == '\\') {
      escaped += "\\e";
    } else if (c == '-') {
      escaped += "\\-";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string Bold(const std::string& text) { return "\\fB" + Roff(text) + "\\fR"; }
std::string Italic(const std::string& text) { return "\\fI" + Roff(text) + "\\fR"; }

std::string Terms(const std::vector<Meaning>& meanings) {
  std::string text;
  for (const Meaning& m : meanings) text += ".TP\n" + Bold(m.term) + "\n" + Roff(m.text) + "\n";
  return text;
}

std::string Option(const OptionText& option) {
  std::string text = ".TP\n";
  for (const std::string& name : option.names) text += (&name == &option.names.front() ? "" : ", ") + Bold(name);
  if (option.names.empty()) text += Italic(option.value);
  const std::string choices = Join(option.choices, [](const std::string& choice) { return choice; });
  if (!option.names.empty() && !option.value.empty()) text += " " + Italic(option.value);
  text += "\n" + Roff(option.help);
  if (!choices.empty()) text += Roff("; one of " + choices);
  if (!option.limits.empty()) text += "; " + option.limits;
  if (!option.default_value.empty()) text += Roff("; default: " + option.default_value);
  if (option.required && !option.names.empty()) text += "; required";
  return text + ".\n";
}

std::string Usage(const CommandText& command) {
  std::string text = Bold("kvant " + command.name);
  for (const OptionText& positional : command.positionals) {
    text += " " + Italic(positional.value) + (positional.repeats ? " ..." : "");
  }
  if (!command.commands.empty()) text += " " + Italic("COMMAND");
  return text + " [" + Italic("options") + "]";
}

bool IsCommon(const OptionText& option, const CommandText& root) {
  for (const OptionText& common : root.options) {
    if (common.names == option.names) return true;
  }
  return false;
}

std::string CommandSection(const CommandText& root, const CommandText& command) {
  std::string text =
      ".SS " + Roff("kvant " + command.name) + "\n" + Roff(command.help) + ".\n.PP\n" + Usage(command) + "\n";
  for (const OptionText& positional : command.positionals) text += Option(positional);
  for (const OptionText& option : command.options) {
    if (!IsCommon(option, root)) text += Option(option);
  }
  return text;
}

std::string Examples(const std::vector<Verb>& verbs) {
  std::string text;
  for (const Verb& verb : verbs) {
    for (const Example& example : verb.examples) {
      text += ".PP\n" + Roff(example.what) + ":\n.PP\n.EX\n    " + Roff(example.command) + "\n.EE\n";
    }
  }
  return text;
}

std::vector<Meaning> PresetMeanings() {
  std::vector<Meaning> meanings;
  for (const Preset& p : Presets()) {
    meanings.push_back({std::string(p.name), std::string(p.summary) + " (" + std::string(p.scheme) + ")"});
  }
  return meanings;
}

}  // namespace

std::string ManPage(const CommandText& root, const std::vector<Verb>& verbs, const std::string& version) {
  std::string text = ".TH KVANT 1 \"\" \"" + Roff(version) + "\" \"User Commands\"\n";
  text += ".SH NAME\nkvant \\- compressed key/value caches for language models\n.SH SYNOPSIS\n";
  for (const CommandText& verb : root.commands) text += Usage(verb) + "\n.br\n";
  text += ".SH DESCRIPTION\n" + Roff(root.help) + "\n.SH OPTIONS OF ALL COMMANDS\n";
  for (const OptionText& option : root.options) text += Option(option);
  text += ".SH COMMANDS\n";
  for (const CommandText* command : root.All()) {
    if (!command->name.empty()) text += CommandSection(root, *command);
  }
  text += ".SH PRESETS\n" + Terms(PresetMeanings()) + ".SH EXIT STATUS\n" + Terms(ExitCodes());
  text += ".SH ENVIRONMENT\n" + Terms(EnvironmentVariables()) + ".SH FILES\n";
  text += ".TP\n" + Italic("MODEL") + ".kvant.safetensors\nThe calibration of a model, found beside it.\n";
  return text + ".SH EXAMPLES\n" + Examples(verbs);
}

}  // namespace kvant
