// Device memory for what comes and goes, and the way of small arrays to the device. For .cu files.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/cuda.cuh"

namespace kvant {

/// Grows on demand; contents are lost then.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// Waits for the device when it has to grow. New memory is zero.
  Status Reserve(size_t bytes) {
    if (bytes <= bytes_) return Status::Ok();
    Free();
    const size_t wanted = AlignUp(bytes + bytes / 4, 4096);
    KVANT_CUDA_TRY(cudaMalloc(reinterpret_cast<void**>(&data_), wanted));
    bytes_ = wanted;
    KVANT_CUDA_TRY(cudaMemset(data_, 0, wanted));
    KVANT_CUDA_TRY(cudaDeviceSynchronize());
    return Status::Ok();
  }
  void Free() {
    cudaFree(data_);
    data_ = nullptr;
    bytes_ = 0;
  }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Arrays that go to the device in one copy.
class ArrayPack {
 public:
  /// Its byte offset, a multiple of 16.
  template <class T>
  size_t Add(std::span<const T> array) {
    const size_t ofs = AlignUp(bytes_.size(), 16);
    bytes_.resize(ofs + array.size_bytes());
    if (!array.empty()) std::memcpy(bytes_.data() + ofs, array.data(), array.size_bytes());
    return ofs;
  }
  template <class T>
  size_t Add(const std::vector<T>& array) {
    return Add(std::span<const T>(array));
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Pinned host memory on its way to the device: the caller's may change at once.
class Uploader {
 public:
  Uploader() = default;
  ~Uploader() {
    for (Stage& stage : stages_) {
      if (stage.sent != nullptr) cudaEventDestroy(stage.sent);
      cudaFreeHost(stage.data);
    }
  }
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  Status Send(std::span<const std::byte> bytes, DeviceBuffer* to, cudaStream_t stream) {
    if (bytes.empty()) return Status::Ok();
    KVANT_TRY(to->Reserve(bytes.size()));
    Stage& stage = stages_[next_++ % stages_.size()];
    if (stage.sent == nullptr) KVANT_CUDA_TRY(cudaEventCreateWithFlags(&stage.sent, cudaEventDisableTiming));
    KVANT_CUDA_TRY(cudaEventSynchronize(stage.sent));
    if (stage.bytes < bytes.size()) {
      cudaFreeHost(std::exchange(stage.data, nullptr));
      stage.bytes = bytes.size() + bytes.size() / 4;
      KVANT_CUDA_TRY(cudaMallocHost(&stage.data, stage.bytes));
    }
    std::memcpy(stage.data, bytes.data(), bytes.size());
    KVANT_CUDA_TRY(cudaMemcpyAsync(to->data(), stage.data, bytes.size(), cudaMemcpyHostToDevice, stream));
    KVANT_CUDA_TRY(cudaEventRecord(stage.sent, stream));
    return Status::Ok();
  }

 private:
  struct Stage {
    void* data = nullptr;
    size_t bytes = 0;
    cudaEvent_t sent = nullptr;
  };
  std::array<Stage, 4> stages_;
  size_t next_ = 0;
};

}  // namespace kvant
