// What a block keeps beside its codes, in fp16: a scale per token, and the mean of the page per channel.
#pragma once

#include <cstddef>

#include "base/float16.h"
#include "codec/codec.h"

namespace kvant {

/// The fp16 numbers at `byte_ofs` of a block.
inline const F16* Halves(const std::byte* block, size_t byte_ofs) {
  return reinterpret_cast<const F16*>(block + byte_ofs);
}
inline F16* Halves(std::byte* block, size_t byte_ofs) { return reinterpret_cast<F16*>(block + byte_ofs); }

/// Writes scales [64]. InvalidArgument: one does not fit fp16. `codec` names the caller in errors, here and below.
Status StoreTokenScales(const char* codec, const float* scales, F16* stored);
/// Corruption unless all 64 are finite and not negative.
Status CheckTokenScales(const char* codec, const F16* stored);
/// scales [64] as floats.
void LoadTokenScales(const F16* stored, float* scales);

/// Means [dim] of rows [64, dim] over the tokens, and the same as floats once rounded. Same bits on every target.
/// dim a multiple of 16.
void StorePageMeans(const float* rows, int dim, F16* stored, float* means);
/// Stored means [dim] as floats.
void LoadPageMeans(const F16* stored, int dim, float* means);
/// Corruption unless all are finite.
Status CheckPageMeans(const char* codec, const F16* stored, int dim);
/// A strip (strip.h) of rows less the means [dim].
void SubtractPageMeans(const float* means, int dim, float* strip);

/// bias[h] = queries[h] . means; queries [heads, dim].
void ScorePageMeans(const F16* stored, int dim, const float* queries, int heads, float* bias);
/// acc[h][c] += sum of weights[h] * mean[c]; weights [heads, 64], acc [heads, acc_stride].
void AccumulatePageMeans(const F16* stored, int dim, const float* weights, int heads, float* acc, size_t acc_stride);

}  // namespace kvant
