// Kernels that decode pages to rows, a warp per block.
#include "base/cuda.h"
#include "cuda/attend_launch.h"
#include "cuda/decode_warp.h"
#include "cuda/simt.cuh"

namespace kvant::cuda {
namespace {

template <int kDim>
constexpr int kDecodeWarps = kDim > 128 ? 2 : 4;

template <CodeKind kKind, int kDim, int kBits>
__global__ void __launch_bounds__(32 * kDecodeWarps<kDim>) DecodePages(const __grid_constant__ DecodeParams p) {
  __shared__ DecodeSpace<kDim> spaces[kKind == CodeKind::kExact ? 1 : kDecodeWarps<kDim>];
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kDecodeWarps<kDim> + warp;
  if (block >= static_cast<int64_t>(p.pages) * p.kv_heads) return;
  const int page = static_cast<int>(block / p.kv_heads);
  const int head = static_cast<int>(block % p.kv_heads);
  if constexpr (kKind == CodeKind::kExact) {
    LoadExactWarp<CudaWarp, kDim>(p, page, head, lane);
  } else {
    DecodeWarp<CudaWarp, kKind, kDim, kBits>(p, page, head, lane, &spaces[warp]);
  }
}

template <CodeKind kKind, int kDim, int kBits>
Status Launch(const DecodeParams& p, void* stream) {
  const int64_t warps = static_cast<int64_t>(p.pages) * p.kv_heads;
  if (warps == 0) return Status::Ok();
  const int64_t blocks = (warps + kDecodeWarps<kDim> - 1) / kDecodeWarps<kDim>;
  DecodePages<kKind, kDim, kBits>
      <<<static_cast<unsigned>(blocks), 32 * kDecodeWarps<kDim>, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
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
