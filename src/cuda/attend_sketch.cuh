// Rows of the table for sketched keys with uniform values.
#pragma once

#include "cuda/attend_kernel.cuh"
#include "cuda/grouped_values.h"
#include "cuda/sketch_readers.h"

namespace kvant::cuda {

/// A block per tile.
template <class Keys>
__global__ void __launch_bounds__(32 * kTileColumns) PrepareSketches(const __grid_constant__ PrepareParams p) {
  PrepareSketchWarp<CudaWarp, Keys>(p, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y),
                                    static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x) / kLanes,
                                    static_cast<int>(threadIdx.x) % kLanes);
}

template <class Keys>
Status LaunchPrepareSketches(const PrepareParams& p, int, void* stream) {
  const dim3 grid(static_cast<unsigned>(p.shape.tiles()), static_cast<unsigned>(p.shape.kv_heads),
                  static_cast<unsigned>(p.shape.sequences));
  PrepareSketches<Keys><<<grid, 32 * kTileColumns, 0, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

template <class Keys, class Values>
constexpr AttendKernel SketchRow(int value_bits) {
  AttendKernel row = RowOf<Keys, Values>(CodeKind::kSketch, 1, value_bits);
  row.value_kind = CodeKind::kUniform;
  row.prepare = LaunchPrepareSketches<Keys>;
  return row;
}

/// Bits of a sketch and of that of its outliers; values of 2 bits, channels of a token that share their parameters.
template <int kDim, int kSketch, int kOutlierSketch, int kGroup>
constexpr AttendKernel kSketchRow =
    SketchRow<SketchKeys<CudaWarp, kDim, kSketch, kOutlierSketch>, GroupedValues<CudaWarp, kDim, 2, kGroup>>(2);

}  // namespace kvant::cuda
