// 16 tokens of a block in the registers of a warp, as encoding and decoding have them.
#pragma once

#include <cstdint>

#include "cuda/fragment_order.h"

namespace kvant::cuda {

/// A unit with tokens as rows, operand A of products: [step][register], as keys have it.
template <int kDim>
struct UnitRows {
  static constexpr int kSteps = kDim / kStepChannels;
  uint32_t word[kSteps][4];

  /// From channels as rows, as values have it.
  template <class W>
  KVANT_HD void Transpose() {
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t second = W::Transpose(word[s][2]);
      word[s][2] = W::Transpose(word[s][1]);
      word[s][1] = second;
      word[s][0] = W::Transpose(word[s][0]);
      word[s][3] = W::Transpose(word[s][3]);
    }
  }
};

}  // namespace kvant::cuda
