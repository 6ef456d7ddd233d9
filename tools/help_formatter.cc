#include "help_formatter.h"

#include <algorithm>

#include "command_tree.h"

namespace kvant {
namespace {

constexpr size_t kIndent = 28;
constexpr size_t kWidth = 100;

std::string Joined(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

}  // namespace

std::string HelpEntry(const std::string& left, const std::string& text) {
  std::string entry = "  " + left;
  size_t column = entry.size();
  if (column + 1 > kIndent) {
    entry += "\n";
    column = 0;
  }
  entry += std::string(kIndent - column, ' ');
  column = kIndent;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    if (column > kIndent && column + 1 + end - at > kWidth) {
      entry += "\n" + std::string(kIndent, ' ');
      column = kIndent;
    } else if (column > kIndent) {
      entry += " ";
      ++column;
    }
    entry += text.substr(at, end - at);
    column += end - at;
    at = end + 1;
  }
  return entry + "\n";
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  const OptionText o = Describe(*option);
  std::string left = is_positional ? o.value : Joined(o.names, ", ");
  if (!o.choices.empty()) {
    left += (is_positional ? " " : "=") + Joined(o.choices, "|");
  } else if (!is_positional && !o.value.empty()) {
    left += " " + o.value;
  }
  std::string notes = o.limits;
  if (!o.default_value.empty()) notes += (notes.empty() ? "" : "; ") + ("default: " + o.default_value);
  if (o.required && !is_positional) notes += (notes.empty() ? "" : "; ") + std::string("required");
  return HelpEntry(left, o.help + (notes.empty() ? "" : " (" + notes + ")"));
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return HelpEntry(command->get_name(), command->get_description());
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const {
  std::string help = CLI::Formatter::make_help(app, std::move(name), mode);
  for (size_t at = 0; (at = help.find("\n\n\n", at)) != std::string::npos;) help.erase(at, 1);
  return help;
}

}  // namespace kvant
