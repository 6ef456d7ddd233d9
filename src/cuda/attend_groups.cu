// Instances for uniform codes with smaller groups.
#include "cuda/attend_kernel.cuh"
#include "cuda/grouped_values.h"

namespace kvant::cuda {
namespace {

/// kGroup: tokens of a channel (keys), channels of a token (values) that share their parameters.
template <int kDim, int kBits, int kGroup>
constexpr AttendKernel kRow =
    RowOf<UniformKeys<CudaWarp, kDim, kBits, kGroup>, GroupedValues<CudaWarp, kDim, kBits, kGroup>>(CodeKind::kUniform,
                                                                                                    kBits, kBits);

constexpr AttendKernel kKernels[] = {
    kRow<128, 4, 64>, kRow<128, 2, 64>, kRow<128, 4, 32>, kRow<128, 2, 32>, kRow<64, 4, 32>, kRow<64, 2, 32>,
};

}  // namespace

std::span<const AttendKernel> GroupKernels() { return kKernels; }

}  // namespace kvant::cuda
