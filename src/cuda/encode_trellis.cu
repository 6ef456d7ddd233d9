// Kernels that encode pages with trellis codes, a thread per channel.
#include "base/cuda.cuh"
#include "cuda/attend_launch.h"
#include "cuda/encode_trellis.h"
#include "cuda/simt.cuh"

namespace kvant::cuda {
namespace {

template <int kDim, int kBits>
__global__ void __launch_bounds__(kDim) EncodeTrellis(const __grid_constant__ EncodeParams p) {
  extern __shared__ __align__(16) std::byte shared[];
  const int64_t block = blockIdx.x;
  EncodeTrellisThread<CudaWarp, kDim, kBits>(p, static_cast<int>(block / p.kv_heads),
                                             static_cast<int>(block % p.kv_heads), static_cast<int>(threadIdx.x),
                                             reinterpret_cast<TrellisSpace<kDim>*>(shared));
}

template <int kDim, int kBits>
Status Launch(const EncodeParams& p, void* stream) {
  constexpr int kBytes = static_cast<int>(sizeof(TrellisSpace<kDim>));
  const int64_t blocks = static_cast<int64_t>(p.pages) * p.kv_heads;
  if (blocks == 0) return Status::Ok();
  KVANT_CUDA_TRY(cudaFuncSetAttribute(EncodeTrellis<kDim, kBits>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  EncodeTrellis<kDim, kBits><<<static_cast<unsigned>(blocks), kDim, kBytes, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

template <int kDim, int kBits>
constexpr EncodeKernel kRow = {CodeKind::kTrellis, kBits, kDim, 1, Launch<kDim, kBits>};

constexpr EncodeKernel kKernels[] = {kRow<128, 3>, kRow<128, 2>, kRow<64, 3>, kRow<64, 2>};

}  // namespace

std::span<const EncodeKernel> TrellisEncodeKernels() { return kKernels; }

}  // namespace kvant::cuda
