#include "command_tree.h"

#include "verb.h"

namespace kvant {
namespace {

// "TEXT:{fp16,bf16}" -> {"fp16", "bf16"}.
std::vector<std::string> Choices(const std::string& type) {
  const size_t open = type.find('{'), close = type.find('}');
  std::vector<std::string> choices;
  if (open == std::string::npos || close == std::string::npos) return choices;
  std::string list = type.substr(open + 1, close - open - 1) + ",";
  for (size_t comma = 0; (comma = list.find(',')) != std::string::npos; list.erase(0, comma + 1)) {
    choices.push_back(list.substr(0, comma));
  }
  return choices;
}

ValueKind KindOf(const std::string& type, const std::vector<std::string>& choices) {
  if (!choices.empty()) return ValueKind::kChoice;
  if (type == kFileValue) return ValueKind::kFile;
  if (type == kModelValue) return ValueKind::kModel;
  return type == kCacheValue ? ValueKind::kCache : ValueKind::kOther;
}

// "INT:INT in [1 - 512]" -> "1 to 512".
std::string Limits(const std::string& type) {
  constexpr std::string_view kIn = " in [";
  const size_t open = type.find(kIn), dash = type.find(" - ", open), close = type.find(']', open);
  if (open == std::string::npos || dash == std::string::npos || close == std::string::npos) return "";
  const size_t first = open + kIn.size();
  return type.substr(first, dash - first) + " to " + type.substr(dash + 3, close - dash - 3);
}

// "[kv8,kv4]" -> "kv8,kv4".
std::string WithoutBrackets(const std::string& text) {
  return text.size() > 1 && text.front() == '[' && text.back() == ']' ? text.substr(1, text.size() - 2) : text;
}

CommandText DescribeCommand(const CLI::App& app, const std::string& name) {
  CommandText text{.name = name, .help = app.get_description()};
  for (const CLI::Option* option : app.get_options()) {
    OptionText described = Describe(*option);
    (described.names.empty() ? text.positionals : text.options).push_back(std::move(described));
  }
  for (const CLI::App* child : app.get_subcommands({})) {
    text.commands.push_back(DescribeCommand(*child, (name.empty() ? "" : name + " ") + child->get_name()));
  }
  return text;
}

void Collect(const CommandText& command, std::vector<const CommandText*>* all) {
  all->push_back(&command);
  for (const CommandText& child : command.commands) Collect(child, all);
}

}  // namespace

std::vector<const CommandText*> CommandText::All() const {
  std::vector<const CommandText*> all;
  Collect(*this, &all);
  return all;
}

OptionText Describe(const CLI::Option& option) {
  OptionText text;
  for (const std::string& name : option.get_snames()) text.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) text.names.push_back("--" + name);
  text.help = option.get_description();
  text.default_value = WithoutBrackets(option.get_default_str());
  text.required = option.get_required();
  if (option.get_items_expected_max() == 0) return text;  // a flag
  const std::string type = option.get_type_name();
  const std::string base = type.substr(0, type.find_first_of(":[ "));
  text.value = text.names.empty() ? option.get_name() : base;
  text.choices = Choices(type);
  text.limits = Limits(type);
  text.kind = KindOf(base, text.choices);
  text.repeats = option.get_expected_max() > 1 || option.get_items_expected_max() > 1;
  return text;
}

CommandText Describe(const CLI::App& app) { return DescribeCommand(app, ""); }

std::string LastWord(const std::string& command_name) { return command_name.substr(command_name.rfind(' ') + 1); }

const std::string& LongName(const OptionText& option) { return option.names.back(); }

std::string FirstClause(const std::string& help) { return help.substr(0, help.find_first_of(";(")); }

}  // namespace kvant
