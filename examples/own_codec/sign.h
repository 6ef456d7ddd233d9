// sign: one bit per value and one magnitude per token. A codec in as few lines as the contract allows.
#pragma once

#include "codec/codec.h"

namespace kvant::sign {

extern const CodecInfo kInfo;

}  // namespace kvant::sign
