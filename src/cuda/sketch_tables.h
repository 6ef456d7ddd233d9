// The matrix of sign sketches as kernels read it.
#pragma once

#include <cstddef>

#include "base/aligned_buffer.h"
#include "kvant/status.h"

namespace kvant::cuda {

/// SketchTableLayout (sketch_order.h) of the matrix that blocks are encoded with. REQUIRES: dim is 64 or 128.
AlignedBuffer<std::byte> MakeSketchTables(int dim);

/// The same on the current device, in memory that belongs to the program: written at the first call for a device, which waits
/// for that, and then stays as it is. Thread-safe.
Result<const std::byte*> DeviceSketchTables(int dim);

}  // namespace kvant::cuda
