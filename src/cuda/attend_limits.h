// Numbers that the host and the kernels share.
#pragma once

namespace kvant::cuda {

/// Query heads of one KV head that a warp takes: the columns of B. More heads take several warps.
constexpr int kTileHeads = 8;
/// A softmax weight times its token's scale becomes fp16 with this factor, so that weights down to 1e-4 keep their
/// precision; scales beyond 65504 / 64 would overflow.
constexpr float kWeightGain = 64.0f;
constexpr float kMaxValueScale = 1000.0f;

}  // namespace kvant::cuda
