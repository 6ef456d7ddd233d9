// fp16 numbers as the 16-bit words that a block holds and kernels read.
#pragma once

#include <cstdint>

#include "base/float16.h"

namespace kvant {

inline uint16_t* Words(F16* values) { return reinterpret_cast<uint16_t*>(values); }
inline const uint16_t* Words(const F16* values) { return reinterpret_cast<const uint16_t*>(values); }

/// Neither infinite nor NaN.
constexpr bool IsFiniteWord(uint16_t word) { return (word & 0x7FFF) < 0x7C00; }
/// What an encoder may write as a scale or a norm: finite and without a sign, -0 refused.
constexpr bool IsScaleWord(uint16_t word) { return word < 0x7C00; }

}  // namespace kvant
