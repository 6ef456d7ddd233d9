// The kernel that builds page tables, a thread block per query row and kind of pages.
#include <algorithm>

#include "base/cuda.cuh"
#include "cuda/page_tables.h"
#include "cuda/simt.cuh"

namespace kvant::cuda {
namespace {

/// Grid: rows of all streams, kinds.
__global__ void __launch_bounds__(32 * kMostTableWarps, 1) BuildTables(const __grid_constant__ TableParams p) {
  __shared__ KeptPages kept_pages;
  BuildTableThread<CudaWarp>(p, p.list[blockIdx.y], static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x),
                             static_cast<int>(blockDim.x), kept_pages);
}

}  // namespace

Status LaunchPageTables(const TableParams& p, void* stream) {
  int most = 0;
  for (int i = 0; i < p.lists; ++i) most = std::max(most, p.list[i].max_pages);
  const int warps = std::clamp((most + kLanes - 1) / kLanes, 1, kMostTableWarps);
  const dim3 grid(static_cast<unsigned>(p.streams * p.rows), static_cast<unsigned>(p.lists));
  BuildTables<<<grid, 32 * warps, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

}  // namespace kvant::cuda
