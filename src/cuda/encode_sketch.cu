// Kernels that encode sketched keys, a warp per block.
#include "base/cuda.h"
#include "cuda/attend_launch.h"
#include "cuda/simt.cuh"
#include "cuda/sketch_encode_warp.h"

namespace kvant::cuda {
namespace {

constexpr int kEncodeWarps = 4;

template <int kDim>
__global__ void __launch_bounds__(32 * kEncodeWarps, 3) EncodeSketches(const __grid_constant__ EncodeParams p) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kEncodeWarps + static_cast<int>(threadIdx.x) / kLanes;
  if (block >= static_cast<int64_t>(p.pages) * p.kv_heads) return;
  SketchEncoder<CudaWarp, kDim>(p, static_cast<int>(block / p.kv_heads), static_cast<int>(block % p.kv_heads),
                                static_cast<int>(threadIdx.x) % kLanes)
      .Encode();
}

template <int kDim>
Status Launch(const EncodeParams& p, void* stream) {
  const int64_t warps = static_cast<int64_t>(p.pages) * p.kv_heads;
  if (warps == 0) return Status::Ok();
  const int64_t blocks = (warps + kEncodeWarps - 1) / kEncodeWarps;
  EncodeSketches<kDim><<<static_cast<unsigned>(blocks), 32 * kEncodeWarps, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

constexpr EncodeKernel kKernels[] = {{CodeKind::kSketch, 1, 64, 1, Launch<64>},
                                     {CodeKind::kSketch, 1, 128, 1, Launch<128>}};

}  // namespace

std::span<const EncodeKernel> SketchEncodeKernels() { return kKernels; }

}  // namespace kvant::cuda
