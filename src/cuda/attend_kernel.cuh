// The decode kernel as a CUDA kernel, and its row in the table.
#pragma once

#include <algorithm>
#include <type_traits>

#include "base/cuda.h"
#include "cuda/attend_launch.h"
#include "cuda/attend_tile.h"
#include "cuda/launch_after.cuh"
#include "cuda/simt.cuh"

namespace kvant::cuda {

/// Threads of a block at most and blocks per multiprocessor at least, which bound the registers. A table of pairs is
/// shared by a whole block, so a large one wants one block of as many warps as fit, up to what leaves 128 registers.
template <class Keys, class Values>
struct KernelBounds {
  /// Codes of a kind and width share one table.
  static constexpr bool kOneTable = std::is_same_v<typename Keys::Table, typename Values::Table>;
  static constexpr int kTableBytes = Keys::Table::kBytes + (kOneTable ? 0 : Values::Table::kBytes);
  static constexpr int kWarpBytes = PageSlots<Keys, Values>::kBytes;

  static constexpr int kMostSharedBytes = 227 * 1024;  ///< of a block on sm_90
  static constexpr int kMostWarps = Keys::kDim > 128 ? 8 : 16;
  static constexpr int kFittingWarps = (kMostSharedBytes - kTableBytes) / (kWarpBytes > 0 ? kWarpBytes : 1);
  static constexpr int kWideWarps = kFittingWarps < kMostWarps ? kFittingWarps : kMostWarps;

  /// Blocks of so few warps may take more registers, which they need: they have less beside them to wait for.
  static constexpr int kLeanWarps = kWideWarps < 8 ? kWideWarps : 8;

  static constexpr bool kLargeTable = Keys::Table::kBytes > 16 * 1024;
  static constexpr int kMaxWarps = kLargeTable ? kWideWarps : 4;
  static constexpr int kMinBlocks = kLargeTable ? 1 : kMostWarps / 4;
};

/// Tables at the start of a block's shared memory; a barrier has to follow. Returns that of values.
template <class Keys, class Values>
__device__ inline std::byte* FillTables(const AttendParams& p, std::byte* shared) {
  using Bounds = KernelBounds<Keys, Values>;
  std::byte* value_table = Bounds::kOneTable ? shared : shared + Keys::Table::kBytes;
  if constexpr (Bounds::kTableBytes > 0) {
    const int threads = static_cast<int>(blockDim.x);
    const int thread = static_cast<int>(threadIdx.x);
    Keys::Table::template Fill<CudaWarp>(p.key_levels, thread, threads, shared);
    if constexpr (!Bounds::kOneTable)
      Values::Table::template Fill<CudaWarp>(p.value_levels, thread, threads, value_table);
  }
  return value_table;
}

template <class Keys, class Values>
__global__ void __launch_bounds__(32 * KernelBounds<Keys, Values>::kMaxWarps, KernelBounds<Keys, Values>::kMinBlocks)
    AttendPages(const __grid_constant__ AttendParams p) {
  using Bounds = KernelBounds<Keys, Values>;
  extern __shared__ __align__(128) std::byte shared[];
  CudaWarp::LaunchNext();
  const std::byte* value_table = FillTables<Keys, Values>(p, shared);
  if constexpr (Bounds::kTableBytes > 0) __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kLanes) + warp;
  const int64_t warps = p.warps();
  if (index >= warps) return;
  AttendWarp<CudaWarp, Keys, Values>(p, WarpPlace::Of(p, index, static_cast<int>(threadIdx.x) % kLanes),
                                     shared + Bounds::kTableBytes + warp * Bounds::kWarpBytes, shared, value_table);
}

/// Grid: blocks of a tile, tiles of all KV heads, sequences.
template <class Keys, class Values, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, 1) AttendTiles(const __grid_constant__ AttendParams p) {
  extern __shared__ __align__(128) std::byte shared[];
  CudaWarp::LaunchNext();
  const std::byte* value_table = FillTables<Keys, Values>(p, shared);
  const int thread = static_cast<int>(threadIdx.x);
  const TilePlace place =
      TilePlace::Of(p, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z),
                    thread / kLanes, static_cast<int>(blockDim.x) / kLanes, thread % kLanes);
  AttendTile<CudaWarp, Keys, Values>(p, place, shared + KernelBounds<Keys, Values>::kTableBytes, shared, value_table);
}

template <class Keys, class Values>
Status ShapeOf(LaunchShape* out) {
  using Bounds = KernelBounds<Keys, Values>;
  constexpr int kWarpBytes = Bounds::kWarpBytes;
  int device = 0;
  int shared_limit = 0;
  int processors = 0;
  KVANT_CUDA_TRY(cudaGetDevice(&device));
  KVANT_CUDA_TRY(cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  KVANT_CUDA_TRY(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  if (shared_limit < Bounds::kTableBytes + kWarpBytes) {
    return Status::NotSupported(StrFormat("this GPU has %d bytes of shared memory per block; the kernel needs %d",
                                          shared_limit, Bounds::kTableBytes + kWarpBytes));
  }
  KVANT_CUDA_TRY(
      cudaFuncSetAttribute(AttendPages<Keys, Values>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit));
  *out = {.processors = processors};
  if constexpr (kWarpBytes > 0) {
    KVANT_CUDA_TRY(cudaFuncSetAttribute(AttendTiles<Keys, Values, Bounds::kWideWarps>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit));
    KVANT_CUDA_TRY(cudaFuncSetAttribute(AttendTiles<Keys, Values, Bounds::kLeanWarps>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit));
    out->wide_warps = std::min(Bounds::kWideWarps, (shared_limit - Bounds::kTableBytes) / kWarpBytes);
  }
  for (int warps = Bounds::kMaxWarps; warps > 0; --warps) {  // as many warps as fit; of equals, the largest blocks
    const size_t bytes = static_cast<size_t>(Bounds::kTableBytes + warps * kWarpBytes);
    if (bytes > static_cast<size_t>(shared_limit)) continue;
    int blocks = 0;
    KVANT_CUDA_TRY(
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, AttendPages<Keys, Values>, 32 * warps, bytes));
    if (blocks * warps * processors <= out->resident_warps) continue;
    out->block_warps = warps;
    out->resident_warps = blocks * warps * processors;
    out->shared_bytes = bytes;
  }
  if (out->block_warps > 0) return Status::Ok();
  return Status::Internal("the decode kernel does not fit this GPU");
}

template <class Keys, class Values>
Status Launch(const AttendParams& p, const LaunchShape& shape, void* stream) {
  const int64_t warps = p.warps();
  if (warps == 0) return Status::Ok();
  const int64_t blocks = (warps + shape.block_warps - 1) / shape.block_warps;
  return LaunchAfter(AttendPages<Keys, Values>, dim3(static_cast<unsigned>(blocks)), 32 * shape.block_warps,
                     shape.shared_bytes, stream, p);
}

template <class Keys, class Values>
Status LaunchTiles(const AttendParams& p, int warps, void* stream) {
  using Bounds = KernelBounds<Keys, Values>;
  if constexpr (Bounds::kWarpBytes > 0) {
    const dim3 grid(static_cast<unsigned>(p.tile.blocks), static_cast<unsigned>(p.shape.kv_heads * p.shape.tiles()),
                    static_cast<unsigned>(p.shape.sequences));
    const auto kernel = warps <= Bounds::kLeanWarps ? AttendTiles<Keys, Values, Bounds::kLeanWarps>
                                                    : AttendTiles<Keys, Values, Bounds::kWideWarps>;
    return LaunchAfter(kernel, grid, 32 * warps, static_cast<size_t>(Bounds::kTableBytes + warps * Bounds::kWarpBytes),
                       stream, p);
  }
  return Status::Internal("exact pages in one launch");
}

/// A row of the table.
template <class Keys, class Values>
constexpr AttendKernel RowOf(CodeKind kind, int key_bits, int value_bits) {
  return {kind,
          kind,
          key_bits,
          value_bits,
          Keys::kDim,
          KernelBounds<Keys, Values>::kTableBytes > 0 && KernelBounds<Keys, Values>::kOneTable,
          Keys::kOffsets,
          Values::kOffsets,
          QueryBytes<Keys>(),
          LaunchPrepare,
          ShapeOf<Keys, Values>,
          Launch<Keys, Values>,
          LaunchTiles<Keys, Values>};
}

}  // namespace kvant::cuda
