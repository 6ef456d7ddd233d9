// Queries and softmax weights as small integers: the other operand of the tile kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/codec.h"

namespace kvant {

/// Planes of a query against codes of up to `bits` bits. One plane of 8 bits costs 0.7 to 1.5 % of a score's spread:
/// nothing beside the third of it that 2-bit codes cost, so it buys speed there; wider codes get 15 bits (1e-4).
constexpr int QueryPlanes(int bits) { return bits <= 2 ? 1 : 2; }

/// Where all weights of a page are below this, one plane of them is enough; weights are about shares of all that a head
/// has seen (kernels/softmax.h). A page then adds 6e-4 of a value at most, all pages 3e-3. Where thousands of tokens weigh alike
/// and their values cancel, it comes to 5e-3 of what is left: nothing beside the third that 2-bit codes cost, too much
/// for wider ones.
constexpr float OnePlaneWeight(int bits) { return bits <= 2 ? 1.0f / 32 : 1.0f / 16384; }

/// Queries and weights whose largest value is below this count as zeros: the inverse of a smaller step may be infinite.
constexpr float kLeastOperand = 1e-30f;

/// Largest integers by planes. Queries: one plane 127; two planes hi * 128 + lo with |hi| <= 127 and |lo| <= 64. Weights, which
/// are not negative: 7 bits, or 14.
constexpr int kQueryMax[3] = {0, 127, 127 * 128};
constexpr int kWeightMax = 127 * 128 + 127;

struct FixedPointKernels {
  /// queries [heads, stride] * channel_scale [channels] (null: 1) -> out [heads * planes][channels]; the column of
  /// head h and plane p is h * planes + p, the high plane first. unit[h] = real value of one step; offset_sum[h] = sum over channels of
  /// the quantised (integer) query, for removing a level offset (null: not wanted).
  void (*quantize_query)(const float* queries, size_t stride, int heads, int channels, int planes,
                         const float* channel_scale, int8_t* out, float* unit, int32_t* offset_sum);

  /// Turns integer sums [heads * planes][64] into scores [heads][64] for tokens first..last-1:
  ///   scores[h][t] = (sum - level_offset * offset_sum[h]) * unit[h] * token_scale[t] + bias[h]
  /// token_scale null: 1; bias null: 0.
  void (*finish_scores)(const int32_t* sums, int heads, int planes, int first_token, int last_token, const float* unit,
                        const int32_t* offset_sum, int level_offset, const float* token_scale, const float* bias,
                        float* scores);

  /// weights [heads, 64] * token_scale [64] (null: 1) -> out [heads][2 planes][64], bytes 0..127, for
  /// TileKernels::accumulate; returns the planes that it shall use: 1 when no weight reaches `one_plane_below`, with lo
  /// then unset. unit[h] = real value of one step of hi * 128 + lo; sum[h] (null: not wanted) = sum over tokens of the
  /// quantised weights times unit[h] (real), for removing a level offset. token_scale >= 0.
  int (*quantize_weights)(const float* weights, int heads, const float* token_scale, float one_plane_below, int8_t* out,
                          float* unit, float* sum);

  /// a . b over n floats (multiple of 16).
  float (*dot)(const float* a, const float* b, int n);
  /// out[i] = rows[i] . b over n floats (multiple of 16), for `count` rows that are n apart.
  void (*dots)(const float* rows, int count, const float* b, int n, float* out);
  /// count fp16 values (multiple of 16) <-> floats.
  void (*from_f16)(const uint16_t* in, int count, float* out);
  void (*to_f16)(const float* in, int count, uint16_t* out);
};

const FixedPointKernels& GetFixedPointKernels();
const FixedPointKernels& ReferenceFixedPointKernels();

}  // namespace kvant
