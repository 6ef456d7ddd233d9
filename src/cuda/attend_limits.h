// Numbers that the host and the kernels share.
#pragma once

namespace kvant::cuda {

/// Columns of a KV head's queries that a warp takes: the columns of B. More take several warps.
constexpr int kTileColumns = 8;
constexpr int kAnyColumns = 1 << 30;
/// A softmax weight times its token's scale becomes fp16 with this factor, so that weights down to 1e-4 keep their
/// precision; scales beyond 65504 / 64 would overflow.
constexpr float kWeightGain = 64.0f;
constexpr float kMaxValueScale = 1000.0f;

}  // namespace kvant::cuda
