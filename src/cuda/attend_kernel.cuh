// The decode kernel as a CUDA kernel, and its row in the table.
#pragma once

#include <algorithm>
#include <type_traits>

#include "base/cuda.cuh"
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
  /// Before the warps' slots: tables, in one launch followed by queries.
  static constexpr int kTileBytes = kTableBytes + WarpQueries::kBytes<Keys>;
  template <int kDepth>
  static constexpr int kWarpBytes = PageSlots<Keys, Values, kDepth>::kBytes;

  static constexpr int kMostSharedBytes = 227 * 1024;  ///< of a block on sm_90
  static constexpr int kMostWarps = Keys::kDim > 128 ? 8 : kMostTileWarps;
  template <int kDepth>
  static constexpr int kFittingWarps = Keys::kExact ? kMostWarps
                                                    : std::min(kMostWarps, (kMostSharedBytes - kTileBytes) /
                                                                               std::max(1, kWarpBytes<kDepth>));
  /// More warps are worth more than more pages under way in each.
  static constexpr int kWideDepth = kFittingWarps<2> == kMostWarps ? 2 : 1;
  /// As many on each of a multiprocessor's four schedulers, which have registers of their own.
  static constexpr int kWideWarps = kFittingWarps<kWideDepth> / 4 * 4;
  static_assert(kWideWarps > 0);

  /// Blocks of so few warps have two pages under way in each, and may take more registers, which they need: they have less
  /// beside them to wait for.
  static constexpr int kLeanDepth = 2;
  static constexpr int kLeanWarps = std::min(8, kFittingWarps<kLeanDepth>);

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
  AttendWarp<Bounds::kWideDepth, CudaWarp, Keys, Values>(
      p, WarpPlace::Of(p, index, static_cast<int>(threadIdx.x) % kLanes),
      shared + Bounds::kTableBytes + warp * Bounds::template kWarpBytes<Bounds::kWideDepth>, shared, value_table);
}

/// Grid: blocks of a tile, tiles of all KV heads, sequences.
template <class Keys, class Values, int kWarps, int kDepth>
__global__ void __launch_bounds__(32 * kWarps, 1) AttendTiles(const __grid_constant__ AttendParams p) {
  extern __shared__ __align__(128) std::byte shared[];
  const std::byte* value_table = FillTables<Keys, Values>(p, shared);
  const int thread = static_cast<int>(threadIdx.x);
  const TilePlace place =
      TilePlace::Of(p, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z),
                    thread / kLanes, static_cast<int>(blockDim.x) / kLanes, thread % kLanes);
  using Bounds = KernelBounds<Keys, Values>;
  AttendTile<kDepth, CudaWarp, Keys, Values>(p, place, shared + Bounds::kTableBytes, shared + Bounds::kTileBytes,
                                             shared, value_table);
}

template <class Keys, class Values>
constexpr auto* kWideTiles =
    AttendTiles<Keys, Values, KernelBounds<Keys, Values>::kWideWarps, KernelBounds<Keys, Values>::kWideDepth>;
template <class Keys, class Values>
constexpr auto* kLeanTiles =
    AttendTiles<Keys, Values, KernelBounds<Keys, Values>::kLeanWarps, KernelBounds<Keys, Values>::kLeanDepth>;

template <class Keys, class Values>
Status ShapeOf(LaunchShape* out) {
  using Bounds = KernelBounds<Keys, Values>;
  constexpr int kWarpBytes = Bounds::template kWarpBytes<Bounds::kWideDepth>;
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
  if constexpr (!Keys::kExact) {
    for (const auto kernel : {kWideTiles<Keys, Values>, kLeanTiles<Keys, Values>}) {
      KVANT_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit));
    }
    const int left = shared_limit - Bounds::kTileBytes;
    out->wide_warps = std::min(Bounds::kWideWarps, left / kWarpBytes);
    out->lean_warps = std::min(Bounds::kLeanWarps, left / Bounds::template kWarpBytes<Bounds::kLeanDepth>);
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
Status LaunchTiles(const AttendParams& p, const LaunchShape& shape, int warps, void* stream) {
  using Bounds = KernelBounds<Keys, Values>;
  if constexpr (!Keys::kExact) {
    const dim3 grid(static_cast<unsigned>(p.tile.blocks), static_cast<unsigned>(p.shape.kv_heads * p.shape.tiles()),
                    static_cast<unsigned>(p.shape.sequences));
    const bool lean = warps <= shape.lean_warps;
    const int warp_bytes =
        lean ? Bounds::template kWarpBytes<Bounds::kLeanDepth> : Bounds::template kWarpBytes<Bounds::kWideDepth>;
    return LaunchAfter(lean ? kLeanTiles<Keys, Values> : kWideTiles<Keys, Values>, grid, 32 * warps,
                       static_cast<size_t>(Bounds::kTileBytes + warps * warp_bytes), stream, p);
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
          Values::Layout::kColumns < kTileColumns ? Values::Layout::kColumns : kAnyColumns,
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
