#include "completion.h"

namespace kvant {
namespace {

std::string Words(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// Names of options, with the names of the commands below.
std::string OptionWords(const CommandText& command) {
  std::vector<std::string> words;
  for (const OptionText& option : command.options) words.push_back(LongName(option));
  return Words(words);
}

std::string ChildWords(const CommandText& command) {
  std::vector<std::string> words;
  for (const CommandText& child : command.commands) words.push_back(LastWord(child.name));
  return Words(words);
}

// What sets `words` or `kind` for a value.
std::string ValueAction(const OptionText& option) {
  switch (option.kind) {
    case ValueKind::kChoice:
      return "kind=words words='" + Words(option.choices) + "'";
    case ValueKind::kFile:
      return "kind=file";
    case ValueKind::kModel:
      return "kind=model";
    case ValueKind::kCache:
      return "kind=cache";
    default:
      return "kind=other";
  }
}

// Pattern for any of an option's names after the command's words: 'run:-n'|'run:--predict'.
std::string Pattern(const CommandText& command, const OptionText& option) {
  std::string pattern;
  for (const std::string& name : option.names)
    pattern += (pattern.empty() ? "'" : "|'") + command.name + ":" + name + "'";
  return pattern;
}

std::string OptionCases(const std::vector<const CommandText*>& commands) {
  std::string text;
  for (const CommandText* command : commands) {
    for (const OptionText& option : command->options) {
      if (option.kind != ValueKind::kFlag)
        text += "    " + Pattern(*command, option) + ") " + ValueAction(option) + " ;;\n";
    }
  }
  return text;
}

std::string CommandCases(const std::vector<const CommandText*>& commands) {
  std::string text;
  for (const CommandText* command : commands) {
    text += "      '" + command->name + "') ";
    if (!command->commands.empty()) {
      text += "kind=words words='" + ChildWords(*command) + "'";
    } else if (!command->positionals.empty()) {
      text += ValueAction(command->positionals.front());
    } else {
      text += "kind=other";
    }
    text += " options='" + OptionWords(*command) + "' ;;\n";
  }
  return text;
}

// Which words lead from one command to the one below: 'bench attend'.
std::string PathPatterns(const std::vector<const CommandText*>& commands) {
  std::string text;
  for (const CommandText* command : commands) {
    if (!command->name.empty()) text += (text.empty() ? "'" : "|'") + command->name + "'";
  }
  return text;
}

constexpr const char* kHead = R"(# bash completion of kvant, made by `kvant completion bash`.
# Try it: source <(kvant completion bash)

# The value of --cache: a list with commas between its caches.
_kvant_caches() {
  local cur="$1" head="" word names
  [[ $cur != *,* ]] || head="${cur%,*},"
  word="${cur##*,}"
  case "$word" in
    k=* | v=*) names="" ; for name in @CODECS@; do names+=" ${word%%=*}=$name"; done ;;
    *) names="@PRESETS@ @CODECS@ k= v=" ;;
  esac
  COMPREPLY=()
  for name in $(compgen -W "$names" -- "$word"); do COMPREPLY+=("$head$name"); done
  [[ -n $head ]] || COMPREPLY+=($(compgen -f -X '!*.json' -- "$word"))
}

_kvant() {
  local line="${COMP_LINE:0:COMP_POINT}" input cur prev path="" kind="" words="" options="" name i
  local IFS=$' \t\n'
  read -ra input <<<"$line"
  [[ $line != *[[:space:]] ]] || input+=("")
  cur="${input[${#input[@]} - 1]}" prev="${input[${#input[@]} - 2]}"
  for ((i = 1; i < ${#input[@]} - 1; ++i)); do
    name="${path:+$path }${input[i]}"
    case "$name" in
      @PATHS@) path="$name" ;;
    esac
  done
  case "$cur" in --*=*) prev="${cur%%=*}" cur="${cur#*=}" ;; esac
  case "$path:$prev" in
)";

constexpr const char* kMiddle = R"(  esac
  if [[ -z $kind ]]; then
    case "$path" in
)";

constexpr const char* kTail = R"(    esac
    [[ $cur != -* ]] || kind=words words="$options"
  fi
  case "$kind" in
    words) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
    file) COMPREPLY=($(compgen -f -- "$cur")) ; compopt -o filenames 2>/dev/null ;;
    model) COMPREPLY=($(compgen -f -X '!*.gguf' -- "$cur") $(compgen -d -- "$cur")) ; compopt -o filenames 2>/dev/null ;;
    cache) _kvant_caches "$cur" ; compopt -o nospace 2>/dev/null ;;
    *) COMPREPLY=() ;;
  esac
  # bash replaces what follows the last ':' or '=' only.
  local typed="${cur%"${cur##*[:=]}"}"
  for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]="${COMPREPLY[i]#"$typed"}"; done
}
complete -F _kvant kvant
)";

void Replace(std::string* text, const std::string& mark, const std::string& by) {
  for (size_t at = 0; (at = text->find(mark, at)) != std::string::npos; at += by.size())
    text->replace(at, mark.size(), by);
}

}  // namespace

std::string BashCompletion(const CommandText& root, const CacheWords& caches) {
  const std::vector<const CommandText*> commands = root.All();
  std::string text = kHead + OptionCases(commands) + kMiddle + CommandCases(commands) + kTail;
  Replace(&text, "@CODECS@", Words(caches.codecs));
  Replace(&text, "@PRESETS@", Words(caches.presets));
  Replace(&text, "@PATHS@", PathPatterns(commands));
  return text;
}

}  // namespace kvant
