#include <algorithm>

#include "completion.h"

namespace kvant {
namespace {

// In single quotes, with what _arguments and _describe would read escaped.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (char c : text) {
    if (c == '\'') {
      escaped += "'\\''";
    } else {
      if (c == '[' || c == ']' || c == ':' || c == '\\') escaped += '\\';
      escaped += c;
    }
  }
  return escaped;
}

std::string Words(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + Escaped(word);
  return text;
}

std::string Action(const OptionText& option) {
  switch (option.kind) {
    case ValueKind::kChoice:
      return "(" + Words(option.choices) + ")";
    case ValueKind::kFile:
      return "_files";
    case ValueKind::kModel:
      return "_files -g \"*.gguf\"";
    case ValueKind::kCache:
      return "_kvant_caches";
    default:
      return "";
  }
}

// "_kvant_bench_attend"
std::string FunctionName(const CommandText& command) {
  std::string name = "_kvant" + (command.name.empty() ? "" : "_" + command.name);
  std::ranges::replace(name, ' ', '_');
  return name;
}

std::string OptionSpecs(const OptionText& option) {
  const std::string many = option.repeats ? "*" : "";
  const std::string value = option.kind == ValueKind::kFlag ? "" : ":" + Escaped(option.value) + ":" + Action(option);
  std::string text;
  for (const std::string& name : option.names) {
    const std::string equals = !value.empty() && name.starts_with("--") ? "=" : "";  // a blank will do as well
    text += " \\\n    '" + many + name + equals + "[" + Escaped(FirstClause(option.help)) + "]" + value + "'";
  }
  return text;
}

std::string LeafFunction(const CommandText& command) {
  std::string text = FunctionName(command) + "() {\n  _arguments -s";
  for (const OptionText& option : command.options) text += OptionSpecs(option);
  int number = 0;
  for (const OptionText& positional : command.positionals) {
    const std::string place = positional.repeats ? "*" : std::to_string(++number);
    text += " \\\n    '" + place + ":" + Escaped(positional.value) + ":" + Action(positional) + "'";
  }
  return text + "\n}\n\n";
}

// A command with commands below it: chooses one and hands the rest of the line on.
std::string BranchFunction(const CommandText& command) {
  std::string text = FunctionName(command) + "() {\n  local state line\n  local -a commands=(";
  for (const CommandText& child : command.commands) {
    text += "\n    '" + LastWord(child.name) + ":" + Escaped(FirstClause(child.help)) + "'";
  }
  text += ")\n  _arguments -C";
  for (const OptionText& option : command.options) text += OptionSpecs(option);
  text += " \\\n    '1: :->command' '*:: :->rest'\n  case $state in\n    command) _describe verb commands ;;\n";
  text += "    rest)\n      case $words[1] in\n";
  for (const CommandText& child : command.commands) {
    text += "        " + LastWord(child.name) + ") " + FunctionName(child) + " ;;\n";
  }
  return text + "      esac ;;\n  esac\n}\n\n";
}

}  // namespace

std::string ZshCompletion(const CommandText& root, const CacheWords& caches) {
  std::string text = "#compdef kvant\n# zsh completion of kvant, made by `kvant completion zsh`.\n\n";
  text += "_kvant_caches() {\n  local -a names=(" + Words(caches.presets) + " " + Words(caches.codecs) +
          ")\n  _alternative 'caches:cache:_values -s , cache $names' 'plans:plan file:_files -g \"*.json\"'\n}\n\n";
  for (const CommandText* command : root.All()) {
    text += command->commands.empty() ? LeafFunction(*command) : BranchFunction(*command);
  }
  return text + "if [ \"$funcstack[1]\" = \"_kvant\" ]; then\n  _kvant \"$@\"\nelse\n  compdef _kvant kvant\nfi\n";
}

}  // namespace kvant
