// Kernels that write rows into exact pages, a warp per row and head.
#include "base/cuda.cuh"
#include "cuda/attend_launch.h"
#include "cuda/simt.cuh"
#include "cuda/write_warp.h"

namespace kvant::cuda {
namespace {

constexpr int kWriteWarps = 4;

/// Grid: rows, heads, sides.
template <int kDim>
__global__ void __launch_bounds__(32 * kWriteWarps) WriteRows(const __grid_constant__ WriteParams p) {
  CudaWarp::LaunchNext();  // sealed pages may be read meanwhile
  const int thread = static_cast<int>(threadIdx.x);
  const int head = static_cast<int>(blockIdx.y) * kWriteWarps + thread / kLanes;
  if (head >= p.kv_heads) return;
  WriteRowWarp<CudaWarp, kDim>(p, p.side[blockIdx.z], static_cast<int>(blockIdx.x), head, thread % kLanes);
}

}  // namespace

Status LaunchWrite(const WriteParams& p, int dim, void* stream) {
  const auto kernel = dim == 64 ? WriteRows<64> : dim == 128 ? WriteRows<128> : WriteRows<256>;
  const dim3 grid(static_cast<unsigned>(p.count), static_cast<unsigned>((p.kv_heads + kWriteWarps - 1) / kWriteWarps),
                  static_cast<unsigned>(p.sides));
  kernel<<<grid, 32 * kWriteWarps, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

}  // namespace kvant::cuda
