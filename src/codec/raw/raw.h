// raw: rows as fp16 or bf16. Open pages, sinks and recent windows are blocks of it, so exact rows take the
// same path through the attention as compressed ones. See raw.md for the bytes.
#pragma once

#include "codec/codec.h"

namespace kvant::raw {

enum class Type { kF16, kBF16 };

/// Blocks hold a multiple of this many tokens, so that a vector of tokens never leaves a channel of keys.
constexpr int kTokenMultiple = 16;

/// One stream "rows", 2 bytes per value: K [dim][tokens] (a vector of tokens meets one query value), V
/// [tokens][dim].
struct State : CodecState {
  using CodecState::CodecState;
  Type type = Type::kF16;
};

/// Offset of (token, channel) in values.
constexpr size_t ValueIndex(const BlockShape& shape, int token, int channel) {
  return shape.side == Side::kKey ? static_cast<size_t>(channel) * static_cast<size_t>(shape.tokens) + token
                                  : static_cast<size_t>(token) * static_cast<size_t>(shape.dim) + channel;
}

const CodecVerbs& SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::raw
