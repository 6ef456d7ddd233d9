// Where the proxy device's tensors live: the KV cache with us, everything else with the inner device.
//
// libllama asks one buffer type for the size of each tensor and then for one buffer for all of them. When the tensors
// were a cache, that buffer is address space with a KvBuffer behind it, and says it is of a second type, which is not
// host memory. All other buffers are the inner device's own.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "ggml-backend-impl.h"
#include "llama/error_log.h"
#include "llama/kv_buffer.h"

namespace kvant {

/// The two buffer types of a proxy device. Thread-safe.
class ProxyBufferTypes {
 public:
  /// All arguments outlive this object.
  ProxyBufferTypes(ggml_backend_dev_t proxy, ggml_backend_dev_t inner, const KvSettings& settings, ErrorLog* errors);
  ProxyBufferTypes(const ProxyBufferTypes&) = delete;
  ProxyBufferTypes& operator=(const ProxyBufferTypes&) = delete;

  /// What the host allocates from.
  ggml_backend_buffer_type_t common() { return &common_; }
  /// What cache buffers are of. Memory that the host allocates from it (copies of states) is the inner device's.
  ggml_backend_buffer_type_t cache() { return &cache_; }
  bool Owns(ggml_backend_buffer_type_t type) const { return type == &common_ || type == &cache_; }

  /// Makes the next allocation fail for this reason. An op that we cannot do is seen while a context plans its
  /// graphs; planning ends with an allocation, so this is how the creation of a context fails.
  void RefuseNextAllocation(const Status& why);

  /// Caches alive now, in the order of their creation.
  std::vector<KvBuffer*> caches() const;

  // Entry points of the ggml interfaces.
  size_t AllocSize(const ggml_tensor& tensor);
  ggml_backend_buffer_t Allocate(size_t bytes);
  ggml_backend_buffer_type_t inner() const { return inner_; }
  ErrorLog& errors() { return *errors_; }
  void Forget(KvBuffer* cache);

 private:
  struct Announced {
    KvName name;
    size_t bytes;
  };
  Status Announce(const ggml_tensor& tensor, size_t bytes);
  bool AnnouncedCache(size_t bytes) const;
  Result<ggml_backend_buffer_t> AllocateCache(size_t bytes);
  void ForgetAnnounced();

  ggml_backend_buffer_type common_ = {};
  ggml_backend_buffer_type cache_ = {};
  ggml_backend_buffer_type_t const inner_;
  const KvSettings& settings_;
  ErrorLog* const errors_;

  mutable std::mutex mutex_;
  std::vector<Announced> announced_;      ///< cache tensors whose size was asked since the last other tensor
  std::atomic<bool> announcing_ = false;  ///< announced_ is not empty
  Status refusal_;
  std::vector<KvBuffer*> caches_;
};

/// Our cache behind a tensor or a view of one; null for all other tensors, and for null.
KvBuffer* CacheOf(const ggml_tensor* maybe_tensor);

}  // namespace kvant
