// Instances for fp16 rows, and the kernels before and after the items.
#include "cuda/attend_kernel.cuh"
#include "cuda/prepare_merge_warp.h"

namespace kvant::cuda {
namespace {

template <int kDim>
constexpr AttendKernel kRow = RowOf<ExactKeys<CudaWarp, kDim>, ExactValues<CudaWarp, kDim>>(CodeKind::kExact, 16, 16);

constexpr AttendKernel kKernels[] = {kRow<128>, kRow<64>, kRow<256>};

// A block per tile, a warp per column of it.
template <int kDim>
__global__ void __launch_bounds__(32 * kTileColumns) PrepareQueries(const __grid_constant__ PrepareParams p) {
  PrepareWarp<CudaWarp, kDim>(p, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y),
                              static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x) / kLanes,
                              static_cast<int>(threadIdx.x) % kLanes);
}

// A block per column.
template <int kDim>
__global__ void __launch_bounds__(32 * kMergeWarps) MergeItems(const __grid_constant__ MergeParams p) {
  __shared__ MergeShared<kDim> shared;
  MergeWarp<CudaWarp, kDim>(p, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x),
                            static_cast<int>(threadIdx.x) / kLanes, static_cast<int>(threadIdx.x) % kLanes, &shared);
}

// By head size 64, 128, 256.
constexpr void (*kPrepare[])(PrepareParams) = {PrepareQueries<64>, PrepareQueries<128>, PrepareQueries<256>};
constexpr void (*kMerge[])(MergeParams) = {MergeItems<64>, MergeItems<128>, MergeItems<256>};
int IndexOf(int dim) { return dim == 64 ? 0 : dim == 128 ? 1 : 2; }

}  // namespace

std::span<const AttendKernel> ExactKernels() { return kKernels; }

Status LaunchPrepare(const PrepareParams& p, int dim, void* stream) {
  const dim3 grid(static_cast<unsigned>(p.shape.tiles()), static_cast<unsigned>(p.shape.kv_heads),
                  static_cast<unsigned>(p.shape.sequences));
  kPrepare[IndexOf(dim)]<<<grid, 32 * kTileColumns, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

Status LaunchMerge(const MergeParams& p, int dim, void* stream) {
  const dim3 grid(static_cast<unsigned>(p.shape.kv_heads * p.shape.columns()),
                  static_cast<unsigned>(p.shape.sequences));
  return LaunchAfter(kMerge[IndexOf(dim)], grid, 32 * kMergeWarps, 0, stream, p);
}

}  // namespace kvant::cuda
