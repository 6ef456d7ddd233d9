#include "device_cache/device_launch.h"

#include "base/cuda.cuh"

namespace kvant {
namespace {

cudaGraphExec_t Executable(void* graph) { return static_cast<cudaGraphExec_t>(graph); }

}  // namespace

DeviceLaunch::~DeviceLaunch() {
  if (graph_ != nullptr) cudaGraphExecDestroy(Executable(graph_));
}

Status DeviceLaunch::Begin(void* stream) {
  KVANT_CUDA_TRY(cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeRelaxed));
  return Status::Ok();
}

Status DeviceLaunch::End(void* stream) {
  cudaGraph_t recorded = nullptr;
  cudaError_t error = cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &recorded);
  // Mostly numbers have changed: that is quicker than to make another.
  cudaGraphExecUpdateResultInfo info;
  const bool updated = error == cudaSuccess && graph_ != nullptr &&
                       cudaGraphExecUpdate(Executable(graph_), recorded, &info) == cudaSuccess;
  if (!updated) {
    static_cast<void>(cudaGetLastError());
    if (graph_ != nullptr) cudaGraphExecDestroy(Executable(graph_));
    graph_ = nullptr;
    cudaGraphExec_t made = nullptr;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&made, recorded, 0);
    graph_ = made;
  }
  if (recorded != nullptr) cudaGraphDestroy(recorded);
  return CudaStatus(error, "recording a graph");
}

Status DeviceLaunch::Launch(void* stream) {
  KVANT_CUDA_TRY(cudaGraphLaunch(Executable(graph_), static_cast<cudaStream_t>(stream)));
  return Status::Ok();
}

}  // namespace kvant
