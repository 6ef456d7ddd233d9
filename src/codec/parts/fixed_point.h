// Queries and softmax weights as small integers: the other operand of the tile kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/codec.h"

namespace kvant {

/// Integers for one call of TileKernels::score. With `planes` = 2 a query has 15 bits (value = hi * 128 + lo, both
/// planes are columns of their own), with 1 it has 8, which is below the noise of codes of up to 4 bits.
struct FixedQuery {
  /// Bytes of the integer operand for `channels` (multiple of 16) and `heads`: channels * heads * planes.
  static size_t Bytes(int channels, int heads, int planes) {
    return static_cast<size_t>(channels) * static_cast<size_t>(heads) * static_cast<size_t>(planes);
  }
};

struct FixedPointKernels {
  /// queries [heads, stride] * channel_scale [channels] (null: 1) -> out [heads * planes][channels]; the column of
  /// head h and plane p is h * planes + p, the high plane first. unit[h] = real value of one step; offset_sum[h] = sum over channels of
  /// the quantised (integer) query, for removing a level offset.
  void (*quantize_query)(const float* queries, size_t stride, int heads, int channels, int planes,
                         const float* channel_scale, int8_t* out, float* unit, int32_t* offset_sum);

  /// Turns integer sums [heads * planes][64] into scores [heads][64] for tokens first..last-1:
  ///   scores[h][t] = (sum - level_offset * offset_sum[h]) * unit[h] * token_scale[t] + bias[h]
  /// token_scale null: 1; bias null: 0.
  void (*finish_scores)(const int32_t* sums, int heads, int planes, int first_token, int last_token,
                        const float* unit, const int32_t* offset_sum, int level_offset, const float* token_scale,
                        const float* bias, float* scores);

  /// weights [heads, 64] * token_scale [64] (null: 1) -> out [heads][2 planes][64], bytes 0..127, for
  /// TileKernels::accumulate. unit[h] = real value of one step of hi * 128 + lo; sum[h] = sum over tokens of the
  /// quantised weights times unit[h] (real), for removing a level offset. token_scale >= 0.
  void (*quantize_weights)(const float* weights, int heads, const float* token_scale, int8_t* out, float* unit,
                           float* sum);

  /// a . b over n floats (multiple of 16).
  float (*dot)(const float* a, const float* b, int n);
  /// count fp16 values (multiple of 16) <-> floats.
  void (*from_f16)(const uint16_t* in, int count, float* out);
  void (*to_f16)(const float* in, int count, uint16_t* out);
};

const FixedPointKernels& GetFixedPointKernels();
const FixedPointKernels& ReferenceFixedPointKernels();

}  // namespace kvant
