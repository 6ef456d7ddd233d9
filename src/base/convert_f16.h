// Arrays of floats to half precision, by the best instructions of this machine. float16.h defines the
// results.
#pragma once

#include <cstddef>

#include "base/float16.h"

namespace kvant {

/// out[i] = ToF16(in[i]), i < n; what would become infinite becomes +-kF16Max instead. `in` holds no NaN.
void FloatsToF16(const float* in, size_t n, F16* out);

}  // namespace kvant
