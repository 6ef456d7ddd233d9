// Lists for people.
#pragma once

#include <string>

namespace kvant {

/// "a, b, c": what `name_of` makes of each item, as anything that a string is made from.
template <typename Range, typename NameOf>
std::string Join(const Range& range, const NameOf& name_of) {
  std::string text;
  for (const auto& item : range) {
    if (!text.empty()) text += ", ";
    text += name_of(item);
  }
  return text;
}

}  // namespace kvant
