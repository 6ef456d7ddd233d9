// Which SIMD target the dispatched kernels use. Tests force one; programs leave it alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvant {

/// Names of the targets compiled in that this machine can run, best first ("AVX3_DL", "AVX2", "SSE2").
std::vector<std::string> SimdTargets();

/// Restricts all kernels to one of SimdTargets(); empty: the best again. Not thread-safe.
/// The environment variable KVANT_FORCE_TARGET does the same at start. False: unknown or not runnable here.
bool SetSimdTarget(const std::string& name);

/// The target in use.
std::string SimdTarget();

}  // namespace kvant
