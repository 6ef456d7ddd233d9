// Status of a CUDA call. For .cu files.
#pragma once

#include <cuda_runtime.h>

#include "kvant/status.h"

namespace kvant {

inline Status CudaStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return Status::Ok();
  const std::string text = StrFormat("CUDA: %s (%s)", cudaGetErrorString(error), call);
  if (error == cudaErrorMemoryAllocation) return Status::OutOfMemory(text);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver || error == cudaErrorNoKernelImageForDevice) {
    return Status::NotSupported(text);
  }
  return Status::Internal(text);
}

}  // namespace kvant

/// Returns from the enclosing function when a CUDA call fails.
#define KVANT_CUDA_TRY(call) KVANT_TRY(::kvant::CudaStatus(call, #call))
