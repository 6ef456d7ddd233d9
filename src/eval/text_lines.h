// Files of one item per line: passages, and JSON objects.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "kvant/status.h"

namespace kvant {

struct TextLine {
  int number = 0;         ///< 1 is the first
  std::string_view text;  ///< without white space around it
};

/// Lines that hold more than white space.
std::vector<TextLine> Lines(std::string_view text);

/// One line of JSON, a value each.
struct JsonLine {
  int number = 0;
  nlohmann::json value;
};

/// Objects with at least the `required` members, which are strings. `name` is what messages call the file. Errors:
/// InvalidArgument naming the line; no lines at all.
Result<std::vector<JsonLine>> ParseJsonLines(std::string_view text, const std::string& name,
                                             const std::vector<std::string>& required);

/// Without white space at both ends.
std::string_view Trim(std::string_view text);
/// Without any of `characters` at the end.
std::string_view TrimEnd(std::string_view text, std::string_view characters);

}  // namespace kvant
