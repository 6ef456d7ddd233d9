// Instances for sketched keys whose outlier channels have a sketch of their own.
#include "cuda/attend_sketch.cuh"

namespace kvant::cuda {
namespace {

constexpr AttendKernel kKernels[] = {kSketchRow<128, 256, 256, 32>, kSketchRow<128, 512, 128, 32>};

}  // namespace

std::span<const AttendKernel> OutlierKernels() { return kKernels; }

}  // namespace kvant::cuda
