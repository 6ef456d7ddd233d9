// Completion scripts for shells, made from the definitions of the command line.
#pragma once

#include <string>
#include <vector>

#include "command_tree.h"

namespace kvant {

/// What a cache may be called, for values of kind kCache.
struct CacheWords {
  std::vector<std::string> presets;  ///< "kv4", "f16": whole caches
  std::vector<std::string> codecs;   ///< "decoquant": whole caches too, and what follows k= and v=
};

// Scripts that offer verbs, options and values. They call no program: all words are in them.
std::string BashCompletion(const CommandText& root, const CacheWords& caches);
std::string ZshCompletion(const CommandText& root, const CacheWords& caches);
std::string FishCompletion(const CommandText& root, const CacheWords& caches);

}  // namespace kvant
