// int: uniform codes of 2, 3, 4 or 8 bits with a scale and a minimum per group, for keys and values alike.
// The plain baseline; `int:4,axis=token,group=32` is what inference engines do with blocks of 32. See int.md
// for the bytes.
//
// State, layout and verbs are those of parts/uniform_codec.h; this folder holds the options.
#pragma once

#include "codec/codec.h"

namespace kvant::integer {

extern const CodecInfo kInfo;

}  // namespace kvant::integer
