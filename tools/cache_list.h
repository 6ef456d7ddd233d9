// The value of --cache: several caches in one word.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvant {

/// Splits "f16,kv4,k=int:4 v=kivi:bits=2,group=32" at the commas between caches. A comma before
/// "option=value" belongs to the codec in front of it, unless the option is k, v, sink or recent, which start
/// a scheme.
std::vector<std::string> SplitCaches(std::string_view list);

}  // namespace kvant
