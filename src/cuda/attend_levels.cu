// Instances for codes whose levels are looked up.
#include "cuda/attend_kernel.cuh"

namespace kvant::cuda {
namespace {

/// kCentred: keys with page means.
template <int kDim, int kKeyBits, int kValueBits, bool kCentred = true>
constexpr AttendKernel kRow =
    RowOf<LevelKeys<CudaWarp, kDim, kKeyBits, kCentred>, LevelValues<CudaWarp, kDim, kValueBits>>(CodeKind::kLevels,
                                                                                                  kKeyBits, kValueBits);

constexpr AttendKernel kKernels[] = {
    kRow<128, 4, 4>,        kRow<128, 3, 3>,        kRow<128, 2, 2>,        kRow<128, 4, 2>,
    kRow<64, 4, 4>,         kRow<64, 3, 3>,         kRow<64, 2, 2>,         kRow<256, 4, 4>,
    kRow<128, 4, 4, false>, kRow<128, 3, 3, false>, kRow<128, 2, 2, false>, kRow<128, 4, 2, false>,
    kRow<64, 4, 4, false>,  kRow<64, 3, 3, false>,  kRow<64, 2, 2, false>,  kRow<256, 4, 4, false>,
};

}  // namespace

std::span<const AttendKernel> LevelKernels() { return kKernels; }

}  // namespace kvant::cuda
