#include "llama/device_scratch.h"

namespace kvant {

Status DeviceScratch::Reserve(ggml_backend_dev_t device, size_t bytes) {
  if (buffer_ != nullptr && ggml_backend_buffer_get_size(buffer_) >= bytes) return Status::Ok();
  Free();
  buffer_ = ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(device), bytes + bytes / 4);
  if (buffer_ == nullptr) {
    return Status::OutOfMemory(StrFormat("no memory to decode a layer for prefill (%zu bytes)", bytes));
  }
  ggml_backend_buffer_clear(buffer_, 0);
  return Status::Ok();
}

void DeviceScratch::Free() {
  ggml_backend_buffer_free(buffer_);
  buffer_ = nullptr;
}

void DeviceScratch::Hold(ggml_tensor* tensor, size_t byte_ofs) const {
  tensor->buffer = buffer_;
  tensor->view_src = nullptr;
  tensor->data = data() + byte_ofs;
}

void DeviceScratch::HoldRowsOf(ggml_tensor* tensor, size_t row_bytes) const {
  Hold(tensor, 0);
  tensor->nb[1] = row_bytes;
  tensor->nb[2] = static_cast<size_t>(tensor->ne[0]) * sizeof(uint16_t);
  tensor->nb[3] = static_cast<size_t>(tensor->ne[1]) * row_bytes;
}

}  // namespace kvant
