// Kernels that decode pages to rows: as many blocks of threads as the device holds at once, a unit of a page for a warp.
#include <algorithm>

#include "base/cuda.cuh"
#include "cuda/attend_launch.h"
#include "cuda/decode_warp.h"
#include "cuda/simt.cuh"

namespace kvant::cuda {
namespace {

constexpr int kDecodeWarps = 8;

template <CodeKind kKind, int kDim, int kBits>
struct Bounds {
  using Table = typename Decoder<CudaWarp, kKind, kDim, kBits>::Table;
  static constexpr int kBytes = Table::kBytes + kDecodeWarps * static_cast<int>(sizeof(RowSpace<kDim>));
  /// Blocks of a multiprocessor at least, which bounds the registers.
  static constexpr int kBlocks = kDim > 128 ? 1 : kKind == CodeKind::kUniform || kKind == CodeKind::kExact ? 3 : 2;
};

template <CodeKind kKind, int kDim, int kBits>
__global__ void __launch_bounds__(32 * kDecodeWarps, Bounds<kKind, kDim, kBits>::kBlocks)
    DecodePages(const __grid_constant__ DecodeParams p) {
  using Table = typename Bounds<kKind, kDim, kBits>::Table;
  extern __shared__ __align__(128) std::byte shared[];
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (Table::kBytes > 0) {
    Table::template Fill<CudaWarp>(p.levels, thread, 32 * kDecodeWarps, shared);
    __syncthreads();
  }
  const int warp = thread / kLanes;
  const int lane = thread % kLanes;
  auto* space = reinterpret_cast<RowSpace<kDim>*>(shared + Table::kBytes) + warp;
  const Decoder<CudaWarp, kKind, kDim, kBits> decoder(p, shared, space, lane);
  const uint32_t units = static_cast<uint32_t>(p.pages) * static_cast<uint32_t>(p.kv_heads) * kUnits;
  for (uint32_t i = blockIdx.x * kDecodeWarps + static_cast<uint32_t>(warp); i < units; i += gridDim.x * kDecodeWarps) {
    decoder.Decode(UnitPlace::Of(p, i, lane));
  }
}

template <CodeKind kKind, int kDim, int kBits>
Status Launch(const DecodeParams& p, void* stream) {
  constexpr auto* kKernel = DecodePages<kKind, kDim, kBits>;
  using B = Bounds<kKind, kDim, kBits>;
  const int64_t units = static_cast<int64_t>(p.pages) * p.kv_heads * kUnits;
  if (units == 0) return Status::Ok();
  int device = 0;
  int processors = 0;
  KVANT_CUDA_TRY(cudaGetDevice(&device));
  KVANT_CUDA_TRY(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  KVANT_CUDA_TRY(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, B::kBytes));
  const int64_t blocks = std::min<int64_t>((units + kDecodeWarps - 1) / kDecodeWarps, processors * B::kBlocks);
  kKernel<<<static_cast<unsigned>(blocks), 32 * kDecodeWarps, B::kBytes, static_cast<cudaStream_t>(stream)>>>(p);
  KVANT_CUDA_TRY(cudaGetLastError());
  return Status::Ok();
}

template <CodeKind kKind, int kDim, int kBits>
constexpr DecodeKernel kRow = {kKind, kBits, kDim, Launch<kKind, kDim, kBits>};

constexpr CodeKind kExact = CodeKind::kExact;
constexpr CodeKind kUniform = CodeKind::kUniform;
constexpr CodeKind kLevels = CodeKind::kLevels;
constexpr CodeKind kTrellis = CodeKind::kTrellis;

// A row for every side of a row of the attention's tables.
constexpr DecodeKernel kKernels[] = {
    kRow<kExact, 64, 16>,   kRow<kExact, 128, 16>,  kRow<kExact, 256, 16>,  kRow<kUniform, 64, 8>,
    kRow<kUniform, 64, 4>,  kRow<kUniform, 64, 2>,  kRow<kUniform, 128, 8>, kRow<kUniform, 128, 4>,
    kRow<kUniform, 128, 3>, kRow<kUniform, 128, 2>, kRow<kUniform, 256, 8>, kRow<kUniform, 256, 4>,
    kRow<kLevels, 64, 4>,   kRow<kLevels, 64, 3>,   kRow<kLevels, 64, 2>,   kRow<kLevels, 128, 4>,
    kRow<kLevels, 128, 3>,  kRow<kLevels, 128, 2>,  kRow<kLevels, 256, 4>,  kRow<kTrellis, 128, 3>,
    kRow<kTrellis, 128, 2>, kRow<kTrellis, 64, 3>,  kRow<kTrellis, 64, 2>,
};

}  // namespace

std::span<const DecodeKernel> DecodeKernels() { return kKernels; }

}  // namespace kvant::cuda
