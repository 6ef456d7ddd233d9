// The table of codecs: one row each, in the order in which they are listed to people.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/codec.h"

namespace kvant {

/// registry.cc holds the list and nothing else, so that a program can link its own instead (examples/own_codec).
std::span<const CodecInfo* const> AllCodecs();

/// Null when there is no codec of that name.
const CodecInfo* FindCodec(std::string_view name);

/// Every codec at the rates it is meant for (CodecInfo::typical), in the order of the list, as scheme text:
/// "kivi:bits=2". A side that the codec does not serve is `raw`.
std::vector<std::string> TypicalSchemes();

}  // namespace kvant
