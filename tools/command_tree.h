// What CLI11 knows about a command line, as plain data: what completions and the man page are made from.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace kvant {

/// What can be offered for a value.
enum class ValueKind { kFlag, kOther, kChoice, kFile, kModel, kCache };

struct OptionText {
  std::vector<std::string> names = {};  ///< {"-n", "--predict"}; empty: a positional
  std::string help = {};
  std::string value = {};  ///< "INT", "FILE"; of a positional its name; empty: a flag
  ValueKind kind = ValueKind::kFlag;
  std::vector<std::string> choices = {};  ///< the accepted values, where they can be listed
  std::string default_value = {};
  std::string limits = {};  ///< "1 to 512"
  bool required = false;
  bool repeats = false;
};

struct CommandText {
  std::string name = {};  ///< "run", "bench attend"; of the whole: ""
  std::string help = {};
  std::vector<OptionText> options = {};  ///< in their order, --help first
  std::vector<OptionText> positionals = {};
  std::vector<CommandText> commands = {};

  /// This one and all below, each before those below it.
  std::vector<const CommandText*> All() const;
};

CommandText Describe(const CLI::App& app);
OptionText Describe(const CLI::Option& option);

/// "attend" of "bench attend".
std::string LastWord(const std::string& command_name);
/// "--predict" of {"-n", "--predict"}. REQUIRES: not a positional.
const std::string& LongName(const OptionText& option);
/// "Find codecs; slow" -> "Find codecs": what a menu has room for.
std::string FirstClause(const std::string& help);

}  // namespace kvant
