// What a token is to the program that writes it.
#pragma once

#include <cstdint>

namespace kvant {

/// Codecs that know classes spend more bits on some; all others ignore them.
enum class TokenClass : uint8_t {
  kOrdinary,  ///< also what a token is of which nothing is said
  kSalient,   ///< should be kept better than its neighbours: a visual token that the question is about
};

}  // namespace kvant
