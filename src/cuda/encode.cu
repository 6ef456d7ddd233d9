// Kernels that encode pages, a warp per block.
#include "cuda/attend_launch.h"
#include "cuda/encode_warp.h"
#include "cuda/launch_blocks.cuh"
#include "cuda/simt.cuh"

namespace kvant::cuda {
namespace {

/// Blocks of threads stay below 48 KiB of shared memory.
template <int kDim>
constexpr int kEncodeWarps = kDim > 128 ? 2 : 4;

template <CodeKind kKind, int kDim, int kBits, int kRows>
__global__ void __launch_bounds__(32 * kEncodeWarps<kDim>) EncodePages(const __grid_constant__ EncodeParams p) {
  __shared__ EncodeSpace<kDim, kRows> spaces[kKind == CodeKind::kExact ? 1 : kEncodeWarps<kDim>];
  const BlockPlace at = BlockPlace::Of(p, kEncodeWarps<kDim>);
  if (!at.exists) return;
  if constexpr (kKind == CodeKind::kExact) {
    StoreExactWarp<CudaWarp, kDim>(p, at.page, at.head, at.lane);
  } else {
    EncodeWarp<CudaWarp, kKind, kDim, kBits, kRows>(p, at.page, at.head, at.lane, &spaces[at.warp]);
  }
}

template <CodeKind kKind, int kDim, int kBits, int kRows>
Status Launch(const EncodeParams& p, void* stream) {
  return LaunchBlocks(EncodePages<kKind, kDim, kBits, kRows>, kEncodeWarps<kDim>, p, stream);
}

template <CodeKind kKind, int kDim, int kBits, int kRows = 1>
constexpr EncodeKernel kRow = {kKind, kBits, kDim, kRows, Launch<kKind, kDim, kBits, kRows>};

constexpr CodeKind kExact = CodeKind::kExact;
constexpr CodeKind kUniform = CodeKind::kUniform;
constexpr CodeKind kLevels = CodeKind::kLevels;

// A row for every side of a row of the attention's tables.
constexpr EncodeKernel kKernels[] = {
    kRow<kExact, 64, 16>,      kRow<kExact, 128, 16>,     kRow<kExact, 256, 16>,     kRow<kUniform, 64, 8>,
    kRow<kUniform, 64, 4>,     kRow<kUniform, 64, 2>,     kRow<kUniform, 128, 8>,    kRow<kUniform, 128, 4>,
    kRow<kUniform, 128, 3>,    kRow<kUniform, 128, 2>,    kRow<kUniform, 256, 8>,    kRow<kUniform, 256, 4>,
    kRow<kUniform, 256, 8, 2>, kRow<kUniform, 256, 4, 2>, kRow<kUniform, 128, 4, 2>, kRow<kUniform, 128, 4, 4>,
    kRow<kUniform, 128, 2, 2>, kRow<kUniform, 128, 2, 4>, kRow<kUniform, 64, 4, 2>,  kRow<kUniform, 64, 2, 2>,
    kRow<kLevels, 64, 4>,      kRow<kLevels, 64, 3>,      kRow<kLevels, 64, 2>,      kRow<kLevels, 128, 4>,
    kRow<kLevels, 128, 3>,     kRow<kLevels, 128, 2>,     kRow<kLevels, 256, 4>,
};

}  // namespace

std::span<const EncodeKernel> EncodeKernels() { return kKernels; }

}  // namespace kvant::cuda
