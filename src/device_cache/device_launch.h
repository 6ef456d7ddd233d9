// Work on a stream that is recorded once and launched many times (a CUDA graph).
#pragma once

#include "kvant/status.h"

namespace kvant {

class DeviceLaunch {
 public:
  DeviceLaunch() = default;
  ~DeviceLaunch();
  DeviceLaunch(const DeviceLaunch&) = delete;
  DeviceLaunch& operator=(const DeviceLaunch&) = delete;

  /// From here to End what is put on `stream` (a cudaStream_t) is recorded and does not run, and so is what is put on streams that wait
  /// for it, which `stream` has to wait for in the end.
  Status Begin(void* stream);
  /// Errors: Internal (something that cannot be recorded, a stream that was not waited for); there is nothing to launch then.
  Status End(void* stream);
  Status Launch(void* stream);

 private:
  void* graph_ = nullptr;  ///< cudaGraphExec_t
};

}  // namespace kvant
