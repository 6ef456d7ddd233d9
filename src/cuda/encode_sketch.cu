// Kernels that encode sketched keys, a warp per block.
#include "cuda/attend_launch.h"
#include "cuda/launch_blocks.cuh"
#include "cuda/simt.cuh"
#include "cuda/sketch_encode_warp.h"

namespace kvant::cuda {
namespace {

constexpr int kEncodeWarps = 4;

template <int kDim>
__global__ void __launch_bounds__(32 * kEncodeWarps, 3) EncodeSketches(const __grid_constant__ EncodeParams p) {
  const BlockPlace at = BlockPlace::Of(p, kEncodeWarps);
  if (at.exists) SketchEncoder<CudaWarp, kDim>(p, at.page, at.head, at.lane).Encode();
}

template <int kDim>
Status Launch(const EncodeParams& p, void* stream) {
  return LaunchBlocks(EncodeSketches<kDim>, kEncodeWarps, p, stream);
}

constexpr EncodeKernel kKernels[] = {{CodeKind::kSketch, 1, 64, 1, Launch<64>},
                                     {CodeKind::kSketch, 1, 128, 1, Launch<128>}};

}  // namespace

std::span<const EncodeKernel> SketchEncodeKernels() { return kKernels; }

}  // namespace kvant::cuda
