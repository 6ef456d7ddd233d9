// The float loops of uniform groups, compiled for every SIMD target. Every n, dim and group is a multiple
// of 16.
#pragma once

#include <cstdint>

#include "codec/parts/group_range.h"

namespace kvant {

struct UniformKernels {
  // ---- encode: ranges, then parameters, then codes. Bytes are equal on all targets.

  /// rows [tokens, dim] -> FindRange of each channel, [dim].
  void (*channel_ranges)(const GroupRange& range, const float* rows, int dim, int tokens, float* min, float* max);
  /// rows [64, dim] -> the same of each token and group of channels, [dim / group][64]; not kQuantile.
  void (*token_ranges)(const GroupRange& range, const float* rows, int dim, int group, float* min, float* max);
  /// FitGroup for n groups: ranges -> fp16 words. `min` becomes the stored min, `max` the inverse of the
  /// scale. `mins` null: FitSymmetricGroup.
  void (*fit)(float* min, float* max, int n, int top, uint16_t* scales, uint16_t* mins);
  /// EncodeUniform for rows [tokens, dim] with parameters per channel, [dim].
  void (*quantize_channels)(const float* rows, int dim, int tokens, const float* min, const float* inverse, int top,
                            uint8_t* codes);
  /// The same for rows [64, dim] with parameters [dim / group][64].
  void (*quantize_tokens)(const float* rows, int dim, int group, const float* min, const float* inverse, int top,
                          uint8_t* codes);

  // ---- decode: codes * scale + min, parameters as above

  void (*dequantize_channels)(const uint8_t* codes, int dim, int tokens, const float* scale, const float* min,
                              float* rows);
  void (*dequantize_tokens)(const uint8_t* codes, int dim, int group, const float* scale, const float* min,
                            float* rows);

  // ---- read path

  /// sum[i] += a[i] + b[i] * factor
  void (*add_scaled)(const float* a, const float* b, float factor, int n, float* sum);
  /// sum[i] += a[i] * b[i] + c[i] * factor
  void (*add_products)(const float* a, const float* b, const float* c, float factor, int n, float* sum);
  /// sum[i] += value
  void (*add_constant)(float value, int n, float* sum);
};

/// For the best SIMD target of this machine (or the one forced with SetSimdTarget).
const UniformKernels& GetUniformKernels();

}  // namespace kvant
