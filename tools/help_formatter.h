// --help in columns that fit a terminal.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace kvant {

class HelpFormatter : public CLI::Formatter {
 public:
  /// Limits and default behind the explanation instead of CLI11's type expressions.
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
  /// Without runs of empty lines.
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

/// `left` at column 2, `text` wrapped from column 28 on.
std::string HelpEntry(const std::string& left, const std::string& text);

}  // namespace kvant
