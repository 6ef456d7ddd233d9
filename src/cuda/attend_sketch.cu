// Instances for sketched keys without outliers.
#include "cuda/attend_sketch.cuh"

namespace kvant::cuda {
namespace {

constexpr AttendKernel kKernels[] = {
    kSketchRow<128, 256, 0, 32>,
    kSketchRow<128, 256, 0, 64>,
    kSketchRow<128, 512, 0, 32>,
    kSketchRow<64, 256, 0, 32>,
};

}  // namespace

std::span<const AttendKernel> SketchKernels() { return kKernels; }

}  // namespace kvant::cuda
