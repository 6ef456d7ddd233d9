#include <algorithm>

#include "completion.h"

namespace kvant {
namespace {

std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

std::string Words(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// When a command's own words are offered: "bench attend" has been typed, and no command below it.
std::string Condition(const CommandText& command) {
  if (command.name.empty()) return "__fish_use_subcommand";
  std::string condition, path = command.name + " ";
  for (size_t blank = 0; (blank = path.find(' ')) != std::string::npos; path.erase(0, blank + 1)) {
    condition += (condition.empty() ? "" : "; and ") + ("__fish_seen_subcommand_from " + path.substr(0, blank));
  }
  std::vector<std::string> below;
  for (const CommandText& child : command.commands) below.push_back(LastWord(child.name));
  return below.empty() ? condition : condition + "; and not __fish_seen_subcommand_from " + Words(below);
}

std::string Value(const OptionText& option, const std::string& cache_words) {
  switch (option.kind) {
    case ValueKind::kFlag:
      return "";
    case ValueKind::kChoice:
      return " -x -a " + Quoted(Words(option.choices));
    case ValueKind::kFile:
      return " -r -F";
    case ValueKind::kModel:
      return " -r -k -a '(__fish_complete_suffix .gguf)'";
    case ValueKind::kCache:
      return " -x -a " + Quoted("(__fish_append , " + cache_words + ") (__fish_complete_suffix .json)");
    case ValueKind::kOther:
      return " -x";
  }
  return "";
}

std::string OptionLine(const std::string& start, const OptionText& option, const std::string& cache_words) {
  std::string line = start;
  for (const std::string& name : option.names) {
    line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  }
  return line + " -d " + Quoted(FirstClause(option.help)) + Value(option, cache_words) + "\n";
}

}  // namespace

std::string FishCompletion(const CommandText& root, const CacheWords& caches) {
  const std::string cache_words = Words(caches.presets) + " " + Words(caches.codecs);
  std::string text = "# fish completion of kvant, made by `kvant completion fish`.\ncomplete -c kvant -f\n";
  for (const CommandText* command : root.All()) {
    const std::string start = "complete -c kvant -n " + Quoted(Condition(*command));
    for (const CommandText& child : command->commands) {
      text += start + " -a " + LastWord(child.name) + " -d " + Quoted(FirstClause(child.help)) + "\n";
    }
    for (const OptionText& option : command->options) text += OptionLine(start, option, cache_words);
    if (!command->positionals.empty()) text += start + Value(command->positionals.front(), cache_words) + "\n";
  }
  return text;
}

}  // namespace kvant
