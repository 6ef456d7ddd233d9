// The memory that a model and its cache live in.
#pragma once

#include <cstdint>

namespace kvant {

struct DeviceMemory {
  int64_t free_bytes = 0;      ///< what can still be had; 0: unknown
  int64_t used_bytes = 0;      ///< what is taken, weights included; 0: unknown
  bool is_high_water = false;  ///< used_bytes is the most that was ever taken, which only a new process forgets
};

/// Of the machine, for models that run on its processors. `used_bytes` is the most that this process has held so far (resident,
/// mapped files such as weights included); `free_bytes` counts pages of files that the system would give up, weights among
/// them. Other devices say what they have in use now.
DeviceMemory ReadDeviceMemory();

}  // namespace kvant
