// Text from files and pipes, checked once at the edge.
#pragma once

#include <string>

#include "kvant/status.h"

namespace kvant {

/// The whole of a text file; "-" is the standard input.
/// Errors, naming the file: NotFound, IoError (not readable, a folder), Corruption (empty, not UTF-8, with
/// the byte).
Result<std::string> ReadText(const std::string& path);

/// Ok for UTF-8 text that is not empty; `name` is what messages call it.
Status CheckText(const std::string& text, const std::string& name);

}  // namespace kvant
