// Kernels with a warp for each block of some pages.
#pragma once

#include "base/cuda.cuh"
#include "cuda/fragment_order.h"

namespace kvant::cuda {

/// The block of this warp; `exists` is false beyond the last one.
struct BlockPlace {
  bool exists;
  int page;
  int head;
  int warp;  ///< of the thread block
  int lane;

  template <class Params>
  static __device__ BlockPlace Of(const Params& p, int warps) {
    const int warp = static_cast<int>(threadIdx.x) / kLanes;
    const int64_t block = static_cast<int64_t>(blockIdx.x) * warps + warp;
    return {block < static_cast<int64_t>(p.pages) * p.kv_heads, static_cast<int>(block / p.kv_heads),
            static_cast<int>(block % p.kv_heads), warp, static_cast<int>(threadIdx.x) % kLanes};
  }
};

/// `warps`: of a thread block.
template <class Params>
Status LaunchBlocks(void (*kernel)(Params), int warps, const Params& p, void* stream) {
  const int64_t blocks = static_cast<int64_t>(p.pages) * p.kv_heads;
  if (blocks == 0) return Status::Ok();
  kernel<<<static_cast<unsigned>((blocks + warps - 1) / warps), 32 * warps, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

}  // namespace kvant::cuda
