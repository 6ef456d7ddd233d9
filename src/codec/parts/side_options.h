// Options that only keys or only values have.
#pragma once

#include <span>

#include "codec/codec.h"

namespace kvant {

/// Refuses an option of `others`, those that only the other side has, by name: it would be without effect, so the
/// writer of the scheme meant something else.
inline Status RefuseOtherSide(const OptionReader& reader, const CodecOptions& given, Side side,
                              std::span<const OptionInfo> others) {
  for (const auto& [name, value] : given) {
    for (const OptionInfo& other : others) {
      if (other.name == name) return reader.Refuse(name, side == Side::kKey ? "for keys" : "for values");
    }
  }
  return Status::Ok();
}

}  // namespace kvant
