// Memory of the inner device for decoded rows.
#pragma once

#include <cstddef>

#include "ggml-backend.h"
#include "ggml.h"
#include "kvant/status.h"

namespace kvant {

class DeviceScratch {
 public:
  DeviceScratch() = default;
  ~DeviceScratch() { Free(); }
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;

  /// Errors: OutOfMemory. New memory is zeros: rows that are not held must be numbers.
  Status Reserve(ggml_backend_dev_t device, size_t bytes);
  void Free();
  bool empty() const { return buffer_ == nullptr; }
  std::byte* data() const { return static_cast<std::byte*>(ggml_backend_buffer_get_base(buffer_)); }

  /// Puts a tensor here, with its strides.
  void Hold(ggml_tensor* tensor, size_t byte_ofs) const;
  /// Puts a cache view [dim, cells, heads, streams] here, as rows of F16 that follow one another.
  void HoldRowsOf(ggml_tensor* tensor, size_t row_bytes) const;

 private:
  ggml_backend_buffer_t buffer_ = nullptr;
};

}  // namespace kvant
