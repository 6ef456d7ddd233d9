// IEEE half precision and bfloat16 as plain 16-bit words, with scalar conversions (round to nearest even).
#pragma once

#include <bit>
#include <cstdint>

namespace kvant {

/// IEEE binary16 bits. A strong type, so that it is never mistaken for an integer code.
struct F16 {
  uint16_t bits = 0;
};
/// The upper half of a binary32.
struct BF16 {
  uint16_t bits = 0;
};

constexpr float kF16Max = 65504.0f;

inline float ToFloat(F16 h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16;
  const uint32_t magnitude = h.bits & 0x7FFFu;
  if (magnitude >= 0x7C00u) return std::bit_cast<float>(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  // Exponent re-bias by a multiplication, which also normalises subnormals exactly.
  const float scaled = std::bit_cast<float>(magnitude << 13) * std::bit_cast<float>(0x77800000u);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

inline F16 ToF16(float f) {
  const uint32_t x = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>((x >> 16) & 0x8000u);
  const uint32_t a = x & 0x7FFFFFFFu;
  if (a > 0x7F800000u) return {static_cast<uint16_t>(sign | 0x7E00u)};
  if (a >= 0x477FF000u) return {static_cast<uint16_t>(sign | 0x7C00u)};  // rounds to infinity
  if (a < 0x38800000u) {  // subnormal: the addition rounds at the right bit
    const float r = std::bit_cast<float>(a) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(r) - 0x3F000000u))};
  }
  const uint32_t rounded = a + 0xFFFu + ((a >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

inline float ToFloat(BF16 b) { return std::bit_cast<float>(static_cast<uint32_t>(b.bits) << 16); }

inline BF16 ToBF16(float f) {
  const uint32_t x = std::bit_cast<uint32_t>(f);
  if ((x & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<uint16_t>((x >> 16) | 0x40u)};
  return {static_cast<uint16_t>((x + 0x7FFFu + ((x >> 16) & 1u)) >> 16)};
}

}  // namespace kvant
