// Times the verbs of codecs on one block.
#pragma once

#include <string>
#include <vector>

#include "kvant/status.h"

namespace kvant {

/// A table as text: nanoseconds of every verb, for `heads` query heads and head size `dim`, on blocks in cache.
Result<std::string> BenchCodecTable(const std::vector<std::string>& schemes, int heads, int dim);

}  // namespace kvant
