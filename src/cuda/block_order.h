// Blocks between the order of the CPU kernels and that of the device: a permutation of the codes within their stream
// and of the parameters within theirs. Sizes and offsets stay.
#pragma once

#include <cstddef>

#include "codec/codec.h"
#include "cuda/attend_params.h"
#include "cuda/fragment_order.h"

namespace kvant::cuda {

/// Head sizes that device kernels read.
constexpr int kDeviceDims[] = {64, 128, 256};

/// What device kernels need to know of a codec's blocks. Errors: NotSupported, naming codec, head size or option.
Result<DeviceFormat> DeviceFormatOf(const Codec& codec);

constexpr TokenOrder TokenOrderOf(CodeKind kind) {
  return kind == CodeKind::kTrellis ? TokenOrder::kRuns : TokenOrder::kUnits;
}
/// Levels are looked up by pairs of codes; the others become floats by arithmetic.
constexpr PairOrder OrderOf(CodeKind kind) {
  return kind == CodeKind::kLevels ? PairOrder::kJoined : PairOrder::kSplit;
}

/// Where the streams of its blocks lie.
BlockOffsets OffsetsOf(const Codec& codec, const DeviceFormat& format);

/// REQUIRES: `format` is DeviceFormatOf(codec), block_bytes() each.
void ToDeviceOrder(const Codec& codec, const DeviceFormat& format, const std::byte* block, std::byte* device_block);
void FromDeviceOrder(const Codec& codec, const DeviceFormat& format, const std::byte* device_block, std::byte* block);

/// InvalidArgument when a parameter of a value block exceeds what the kernels' fp16 weights can take.
Status CheckDeviceRange(const Codec& codec, const DeviceFormat& format, const std::byte* block);

}  // namespace kvant::cuda
