// A launch that may start before the previous one on its stream has ended.
#pragma once

#include "base/cuda.cuh"

namespace kvant::cuda {

/// Launches a kernel that waits (WaitForPrevious) before it reads what the previous kernel writes. On GPUs before sm_90 an
/// ordinary launch.
template <class Params>
Status LaunchAfter(void (*kernel)(Params), dim3 grid, int threads, size_t shared_bytes, void* stream,
                   const Params& params) {
  int device = 0;
  int major = 0;
  KVANT_CUDA_TRY(cudaGetDevice(&device));
  KVANT_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  KVANT_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, params));
  return Status::Ok();
}

}  // namespace kvant::cuda
