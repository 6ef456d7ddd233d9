// Kernels that decode pages to rows, a warp per block.
#include "cuda/attend_launch.h"
#include "cuda/decode_warp.h"
#include "cuda/launch_blocks.cuh"
#include "cuda/simt.cuh"

namespace kvant::cuda {
namespace {

template <int kDim>
constexpr int kDecodeWarps = kDim > 128 ? 2 : 4;

template <CodeKind kKind, int kDim, int kBits>
__global__ void __launch_bounds__(32 * kDecodeWarps<kDim>) DecodePages(const __grid_constant__ DecodeParams p) {
  __shared__ DecodeSpace<kDim> spaces[kKind == CodeKind::kExact ? 1 : kDecodeWarps<kDim>];
  const BlockPlace at = BlockPlace::Of(p, kDecodeWarps<kDim>);
  if (!at.exists) return;
  if constexpr (kKind == CodeKind::kExact) {
    LoadExactWarp<CudaWarp, kDim>(p, at.page, at.head, at.lane);
  } else {
    DecodeWarp<CudaWarp, kKind, kDim, kBits>(p, at.page, at.head, at.lane, &spaces[at.warp]);
  }
}

template <CodeKind kKind, int kDim, int kBits>
Status Launch(const DecodeParams& p, void* stream) {
  return LaunchBlocks(DecodePages<kKind, kDim, kBits>, kDecodeWarps<kDim>, p, stream);
}

template <CodeKind kKind, int kDim, int kBits>
constexpr DecodeKernel kRow = {kKind, kBits, kDim, Launch<kKind, kDim, kBits>};

constexpr CodeKind kExact = CodeKind::kExact;
constexpr CodeKind kUniform = CodeKind::kUniform;
constexpr CodeKind kLevels = CodeKind::kLevels;
constexpr CodeKind kTrellis = CodeKind::kTrellis;

// A row for every side of a row of the attention's tables.
constexpr DecodeKernel kKernels[] = {
    kRow<kExact, 64, 16>,   kRow<kExact, 128, 16>,  kRow<kExact, 256, 16>,  kRow<kUniform, 64, 8>,
    kRow<kUniform, 64, 4>,  kRow<kUniform, 64, 2>,  kRow<kUniform, 128, 8>, kRow<kUniform, 128, 4>,
    kRow<kUniform, 128, 3>, kRow<kUniform, 128, 2>, kRow<kUniform, 256, 8>, kRow<kUniform, 256, 4>,
    kRow<kLevels, 64, 4>,   kRow<kLevels, 64, 3>,   kRow<kLevels, 64, 2>,   kRow<kLevels, 128, 4>,
    kRow<kLevels, 128, 3>,  kRow<kLevels, 128, 2>,  kRow<kLevels, 256, 4>,  kRow<kTrellis, 128, 3>,
    kRow<kTrellis, 128, 2>, kRow<kTrellis, 64, 3>,  kRow<kTrellis, 64, 2>,
};

}  // namespace

std::span<const DecodeKernel> DecodeKernels() { return kKernels; }

}  // namespace kvant::cuda
