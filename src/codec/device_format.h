// How a block reads as codes and parameters, for backends that keep the same codes in another order (cuda/).
//
// A codec that a device kernel can read describes its blocks with this; the kernel then knows no codec by name:
//
//   kExact    row[c] = value                                                     16-bit floats
//   kUniform  row[c] = code * scale + shift                                      keys: scale and shift per channel and
//                                                                                token group, values: per token and
//                                                                                channel group
//   kLevels   map(row - shift)[c] = levels[code] * step * scale                  scale per token, shift per channel
//   kTrellis  the same with levels[window]                                       windows as parts/trellis.h says
//   kSketch   row = scale * sqrt(pi / 2) / m * sum_i sign_i s_i                   keys: m signs and a scale per token, s_i as
//                                                                                parts/sketch.h says; a few channels of
//                                                                                32 tokens apart, with signs of their own
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvant {

enum class CodeKind : uint8_t { kExact, kUniform, kLevels, kTrellis, kSketch };
enum class ParamAxis : uint8_t { kNone, kChannel, kToken };

/// A stream of fp16 parameters: [rows][dim] on axis kChannel, [rows][64] on axis kToken.
struct DeviceParams {
  ParamAxis axis = ParamAxis::kNone;
  int rows = 1;
  size_t byte_ofs = 0;  ///< in the block
};

/// What kSketch has beyond signs and scales of its first part.
struct DeviceSketch {
  int bits = 0;          ///< m
  int outliers = 0;      ///< channels apart; 0: there are none, nor what follows
  int outlier_bits = 0;  ///< of their sketch
  size_t outlier_codes_byte_ofs = 0;
  DeviceParams outlier_scales = {};
  size_t channels_byte_ofs = 0;  ///< u8 [2 groups of 32 tokens][outliers], ascending
};

/// As many as a trellis has windows.
constexpr int kDeviceLevels = 64;

/// Codes are tiles (parts/tile.h), kTokenLane for keys and kChannelLane for values; exact rows lie as `raw` says, signs are
/// tiles of 16 directions.
struct DeviceFormat {
  CodeKind kind = CodeKind::kExact;
  int bits = 16;  ///< of a code
  size_t codes_byte_ofs = 0;
  DeviceParams scales = {};
  DeviceParams shifts = {};
  bool hadamard = false;  ///< rows are mapped by parts/hadamard.h before they are coded
  float step = 1.0f;      ///< kLevels, kTrellis
  /// By code (kLevels, bits <= 4) or window: multiples of 1/2 up to 127, exact in fp16.
  float levels[kDeviceLevels] = {};
  /// For encoding on the device. kLevels: borders between rising magnitudes (Codebook), and the rule of a token's scale.
  bool encodable = false;  ///< groups from least to greatest value; nearest levels, scales unbiased or of least squares
  float thresholds[7] = {};
  bool unbiased = false;
  DeviceSketch sketch = {};  ///< kSketch
};

}  // namespace kvant
