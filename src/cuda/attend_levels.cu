// Instances for codes whose levels are looked up, keys with page means.
#include "cuda/attend_kernel.cuh"

namespace kvant::cuda {
namespace {

template <int kDim, int kKeyBits, int kValueBits>
constexpr AttendKernel kRow = RowOf<LevelKeys<CudaWarp, kDim, kKeyBits>, LevelValues<CudaWarp, kDim, kValueBits>>(
    CodeKind::kLevels, kKeyBits, kValueBits);

constexpr AttendKernel kKernels[] = {
    kRow<128, 4, 4>, kRow<128, 3, 3>, kRow<128, 2, 2>, kRow<128, 4, 2>,
    kRow<64, 4, 4>,  kRow<64, 3, 3>,  kRow<64, 2, 2>,  kRow<256, 4, 4>,
};

}  // namespace

std::span<const AttendKernel> LevelKernels() { return kKernels; }

}  // namespace kvant::cuda
