// Instances for uniform codes with the widest groups: a page of tokens, 128 channels.
#include "cuda/attend_kernel.cuh"

namespace kvant::cuda {
namespace {

template <int kDim, int kKeyBits, int kValueBits>
constexpr AttendKernel kRow = RowOf<UniformKeys<CudaWarp, kDim, kKeyBits>, UniformValues<CudaWarp, kDim, kValueBits>>(
    CodeKind::kUniform, kKeyBits, kValueBits);

constexpr AttendKernel kKernels[] = {
    kRow<128, 8, 8>, kRow<128, 4, 4>, kRow<128, 3, 3>, kRow<128, 2, 2>, kRow<128, 4, 2>,
    kRow<64, 8, 8>,  kRow<64, 4, 4>,  kRow<64, 2, 2>,  kRow<256, 8, 8>, kRow<256, 4, 4>,
};

}  // namespace

std::span<const AttendKernel> UniformKernels() { return kKernels; }

}  // namespace kvant::cuda
