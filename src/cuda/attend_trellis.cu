// Instances for symbols of a trellis.
#include "cuda/attend_kernel.cuh"
#include "cuda/trellis_readers.h"

namespace kvant::cuda {
namespace {

template <int kDim, int kBits>
constexpr AttendKernel kRow =
    RowOf<TrellisKeys<CudaWarp, kDim, kBits>, TrellisValues<CudaWarp, kDim, kBits>>(CodeKind::kTrellis, kBits, kBits);

template <int kDim, int kBits>
constexpr AttendKernel kPairedRow =
    RowOf<PairedTrellisKeys<CudaWarp, kDim, kBits>, PairedTrellisValues<CudaWarp, kDim, kBits>>(CodeKind::kTrellis,
                                                                                                kBits, kBits);

constexpr AttendKernel kKernels[] = {kPairedRow<128, 3>, kPairedRow<128, 2>, kRow<128, 3>,
                                     kRow<128, 2>,       kRow<64, 3>,        kRow<64, 2>};

}  // namespace

std::span<const AttendKernel> TrellisKernels() { return kKernels; }

}  // namespace kvant::cuda
