// Memory of this process as the system counts it.
#pragma once

#include <cstdint>

namespace kvant {

/// Private memory that is resident, in bytes: not the pages of mapped files such as model weights. Free
/// memory that the allocator still holds is handed back first. 0 where the system does not tell.
int64_t PrivateMemoryBytes();

}  // namespace kvant
