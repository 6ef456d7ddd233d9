// The kernels as a table, free of CUDA's types: plain C++ finds and launches them; without CUDA the table is empty.
#pragma once

#include <cstddef>
#include <span>

#include "codec/device_format.h"
#include "cuda/attend_params.h"
#include "kvant/status.h"

namespace kvant::cuda {

/// How a launch is laid out on the current device.
struct LaunchShape {
  int block_warps = 0;
  int resident_warps = 0;  ///< on the whole device at once
  size_t shared_bytes = 0;
  int processors = 0;
  int wide_warps = 0;  ///< of a block in one launch, at most; 0: there is none
  int lean_warps = 0;  ///< of a block, at most, where each has more registers and pages under way
  const std::byte* maybe_key_tables = nullptr;  ///< in device memory
};

/// One instance of the decode kernel.
struct AttendKernel {
  CodeKind kind;
  CodeKind value_kind;
  int key_bits;
  int value_bits;
  int dim;
  int columns;       ///< of queries that it takes at most, 4 or any number
  bool same_levels;  ///< keys and values share their levels
  BlockOffsets key_offsets;
  BlockOffsets value_offsets;
  int query_bytes;  ///< of a tile, AttendParams::queries
  /// Before `launch`. REQUIRES: dim as above.
  Status (*prepare)(const PrepareParams& params, int dim, void* stream);
  /// Asks the current device; also raises the kernel's limit of shared memory.
  Status (*shape)(LaunchShape* out);
  /// `stream` is a cudaStream_t. Neither waits nor allocates.
  Status (*launch)(const AttendParams& params, const LaunchShape& shape, void* stream);
  /// The whole step, AttendParams::tile; `warps` of a block.
  Status (*launch_tiles)(const AttendParams& params, const LaunchShape& shape, int warps, void* stream);
};

std::span<const AttendKernel> ExactKernels();
std::span<const AttendKernel> UniformKernels();
std::span<const AttendKernel> GroupKernels();
std::span<const AttendKernel> LevelKernels();
std::span<const AttendKernel> PlainLevelKernels();
std::span<const AttendKernel> TrellisKernels();
std::span<const AttendKernel> SketchKernels();
std::span<const AttendKernel> OutlierKernels();

/// One instance of the kernel that encodes pages.
struct EncodeKernel {
  CodeKind kind;
  int bits;
  int dim;
  int rows;  ///< of scales
  Status (*launch)(const EncodeParams& params, void* stream);
};
std::span<const EncodeKernel> EncodeKernels();
std::span<const EncodeKernel> SketchEncodeKernels();
std::span<const EncodeKernel> TrellisEncodeKernels();

/// One instance of the kernel that decodes pages.
struct DecodeKernel {
  CodeKind kind;
  int bits;
  int dim;
  Status (*launch)(const DecodeParams& params, void* stream);
};
std::span<const DecodeKernel> DecodeKernels();

/// REQUIRES: dim is one of kDeviceDims.
Status LaunchPrepare(const PrepareParams& params, int dim, void* stream);
Status LaunchMerge(const MergeParams& params, int dim, void* stream);
Status LaunchWrite(const WriteParams& params, int dim, void* stream);

}  // namespace kvant::cuda
