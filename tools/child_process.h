// Work in a process of its own, whose memory is counted from nothing.
#pragma once

#include <cstdint>
#include <functional>

#include "kvant/status.h"

namespace kvant {

/// What `work` returns in a copy of this process, which ends with it. Errors: those of `work`; OutOfMemory when the system
/// killed it; IoError when there is no process to be had. REQUIRES: this process has no threads that `work` waits for.
Result<int64_t> InChildProcess(const std::function<Result<int64_t>()>& work);

}  // namespace kvant
