// Kernels that encode pages: a warp per block, of levels four warps.
#include <algorithm>

#include "cuda/attend_launch.h"
#include "cuda/encode_levels.h"
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
    EncodeWarp<CudaWarp, kDim, kBits, kRows>(p, at.page, at.head, at.lane, &spaces[at.warp]);
  }
}

template <CodeKind kKind, int kDim, int kBits, int kRows>
Status Launch(const EncodeParams& p, void* stream) {
  return LaunchBlocks(EncodePages<kKind, kDim, kBits, kRows>, kEncodeWarps<kDim>, p, stream);
}

/// Blocks of threads of a multiprocessor at least, which bounds the registers.
template <int kDim>
constexpr int kLevelBlocks = kDim > 128 ? 2 : 4;

template <int kDim, int kBits>
__global__ void __launch_bounds__(kLevelThreads, kLevelBlocks<kDim>)
    EncodeLevels(const __grid_constant__ EncodeParams p) {
  __shared__ LevelSpace<kDim> space;
  LevelEncoder<CudaWarp, kDim, kBits> encoder(p, static_cast<int>(threadIdx.x), &space);
  const uint32_t kv_heads = static_cast<uint32_t>(p.kv_heads);
  for (uint32_t i = blockIdx.x; i < static_cast<uint32_t>(p.pages) * kv_heads; i += gridDim.x) {
    encoder.Encode(static_cast<int>(i / kv_heads), static_cast<int>(i % kv_heads));
  }
}

template <int kDim, int kBits>
Status LaunchLevels(const EncodeParams& p, void* stream) {
  const int64_t blocks = static_cast<int64_t>(p.pages) * p.kv_heads;
  if (blocks == 0) return Status::Ok();
  int device = 0;
  int processors = 0;
  KVANT_CUDA_TRY(cudaGetDevice(&device));
  KVANT_CUDA_TRY(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  const auto grid = static_cast<unsigned>(std::min<int64_t>(blocks, processors * kLevelBlocks<kDim>));
  EncodeLevels<kDim, kBits><<<grid, kLevelThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

template <CodeKind kKind, int kDim, int kBits, int kRows = 1>
constexpr EncodeKernel kRow = {kKind, kBits, kDim, kRows, Launch<kKind, kDim, kBits, kRows>};

template <int kDim, int kBits>
constexpr EncodeKernel kLevelRow = {CodeKind::kLevels, kBits, kDim, 1, LaunchLevels<kDim, kBits>};

constexpr CodeKind kExact = CodeKind::kExact;
constexpr CodeKind kUniform = CodeKind::kUniform;

// A row for every side of a row of the attention's tables.
constexpr EncodeKernel kKernels[] = {
    kRow<kExact, 64, 16>,      kRow<kExact, 128, 16>,     kRow<kExact, 256, 16>,     kRow<kUniform, 64, 8>,
    kRow<kUniform, 64, 4>,     kRow<kUniform, 64, 2>,     kRow<kUniform, 128, 8>,    kRow<kUniform, 128, 4>,
    kRow<kUniform, 128, 3>,    kRow<kUniform, 128, 2>,    kRow<kUniform, 256, 8>,    kRow<kUniform, 256, 4>,
    kRow<kUniform, 256, 8, 2>, kRow<kUniform, 256, 4, 2>, kRow<kUniform, 128, 4, 2>, kRow<kUniform, 128, 4, 4>,
    kRow<kUniform, 128, 2, 2>, kRow<kUniform, 128, 2, 4>, kRow<kUniform, 64, 4, 2>,  kRow<kUniform, 64, 2, 2>,
    kLevelRow<64, 4>,          kLevelRow<64, 3>,          kLevelRow<64, 2>,          kLevelRow<128, 4>,
    kLevelRow<128, 3>,         kLevelRow<128, 2>,         kLevelRow<256, 4>,
};

}  // namespace

std::span<const EncodeKernel> EncodeKernels() { return kKernels; }

}  // namespace kvant::cuda
