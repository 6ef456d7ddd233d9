// Instances for uniform codes.
#include "cuda/attend_kernel.cuh"

namespace kvant::cuda {
namespace {

/// kKeyGroup: tokens, kValueGroup: channels that share their parameters.
template <int kDim, int kKeyBits, int kValueBits, int kKeyGroup = kPageTokens, int kValueGroup = 128>
constexpr AttendKernel kRow =
    RowOf<UniformKeys<CudaWarp, kDim, kKeyBits, kKeyGroup>, UniformValues<CudaWarp, kDim, kValueBits, kValueGroup>>(
        CodeKind::kUniform, kKeyBits, kValueBits);

constexpr AttendKernel kKernels[] = {
    kRow<128, 8, 8>,         kRow<128, 4, 4>,         kRow<128, 3, 3>,         kRow<128, 2, 2>,
    kRow<128, 4, 2>,         kRow<64, 8, 8>,          kRow<64, 4, 4>,          kRow<64, 2, 2>,
    kRow<256, 8, 8>,         kRow<256, 4, 4>,         kRow<128, 4, 4, 64, 64>, kRow<128, 2, 2, 64, 64>,
    kRow<128, 4, 4, 32, 32>, kRow<128, 2, 2, 32, 32>, kRow<64, 4, 4, 32, 32>,  kRow<64, 2, 2, 32, 32>,
};

}  // namespace

std::span<const AttendKernel> UniformKernels() { return kKernels; }

}  // namespace kvant::cuda
