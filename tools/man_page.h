// The manual page, made from the definitions of the command line.
#pragma once

#include <string>
#include <vector>

#include "command_line.h"
#include "command_tree.h"

namespace kvant {

/// roff (man macros) of kvant(1).
std::string ManPage(const CommandText& root, const std::vector<Verb>& verbs, const std::string& version);

}  // namespace kvant
