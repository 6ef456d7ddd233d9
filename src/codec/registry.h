// The table of codecs: one row each, in the order in which they are listed to people.
#pragma once

#include <span>
#include <string_view>

#include "codec/codec.h"

namespace kvant {

/// registry.cc holds the list and nothing else, so that a program can link its own instead (examples/own_codec).
std::span<const CodecInfo* const> AllCodecs();

/// Null when there is no codec of that name.
const CodecInfo* FindCodec(std::string_view name);

}  // namespace kvant
