// The device KVANT0 (KVANT1, ... where there are several GPUs): wraps an inner device, forwards everything to it, and keeps the KV cache itself.
//
// libllama sees a GPU device. It places the layers on it, allocates the cache from its buffer type and hands it whole
// graphs; weights, activations and all other ops are the inner device's.
//
//   proxy_device       registry and device: which ops it takes
//   proxy_buffer_type  where tensors live
//   proxy_backend      runs graphs: kv_ops rewrites what touches the cache, the inner backend computes
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ggml-backend-impl.h"
#include "llama/proxy_buffer_type.h"

namespace kvant {

/// One device, in a registry of its own unless it joins another's. Thread-safe. Must outlive all models and contexts that use it.
class ProxyDevice {
 public:
  /// Errors: NotSupported when `inner` is neither a CPU nor a CUDA device, or this build has no CUDA.
  static Result<std::unique_ptr<ProxyDevice>> Create(ggml_backend_dev_t inner, const KvSettings& settings);
  ProxyDevice(const ProxyDevice&) = delete;
  ProxyDevice& operator=(const ProxyDevice&) = delete;

  /// Becomes the next device in the registry of `first`, which outlives it.
  void Join(ProxyDevice* first);

  ggml_backend_reg_t reg() { return device_.reg; }
  const std::vector<ProxyDevice*>& registered() const { return registered_; }  ///< in the registry of its own
  const char* name() const { return name_.c_str(); }
  ggml_backend_dev_t device() { return &device_; }
  ggml_backend_dev_t inner() const { return inner_; }
  bool on_cuda() const { return settings_.on_cuda; }
  /// A function of the inner device's registry, "ggml_backend_set_n_threads" for example; null when it has none.
  void* InnerFunction(const char* name) const;

  ProxyBufferTypes& buffer_types() { return buffer_types_; }
  const ProxyBufferTypes& buffer_types() const { return buffer_types_; }
  ErrorLog& errors() { return errors_; }

  /// Can the device run this op? Learns head sizes from ops on the cache, and refuses those it cannot do.
  bool SupportsOp(const ggml_tensor& op);

  /// All caches alive now.
  Footprint footprint() const;
  size_t memory_bytes() const;
  double seal_seconds() const;

 private:
  ProxyDevice(ggml_backend_dev_t inner, const KvSettings& settings);
  bool BetterRepacked(const ggml_tensor& op) const;

  ggml_backend_dev_t const inner_;
  const KvSettings settings_;
  ErrorLog errors_;
  std::string name_ = "KVANT0";
  std::vector<ProxyDevice*> registered_ = {this};
  ggml_backend_reg reg_ = {};
  ggml_backend_device device_ = {};
  ProxyBufferTypes buffer_types_;
};

/// The device behind a ggml device of ours.
inline ProxyDevice& ProxyOf(ggml_backend_dev_t device) { return *static_cast<ProxyDevice*>(device->context); }

}  // namespace kvant
