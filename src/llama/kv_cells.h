// The rows behind the tensors of a cache: in host memory, or on a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/float16.h"
#include "cache/kv_store.h"
#include "kvant/kv_cache.h"
#include "llama/kv_tensor.h"

namespace kvant {

class DeviceCache;

/// How a device compresses.
struct KvSettings {
  Scheme scheme;
  size_t memory_limit_bytes = 0;  ///< of each cache; 0: none
  std::shared_ptr<const Calibration> maybe_calibration = nullptr;
  bool on_cuda = false;  ///< pages lie in the memory of a CUDA device
  int cuda_device = 0;   ///< its number
};

/// The two tensors of a layer.
struct KvLayer {
  const KvTensor* keys;
  const KvTensor* values;
};

/// REQUIRES of all: `tensor.index` is the number of its layer in the list that the cells were made of. Rows are fp16
/// [count, row_values] in host memory.
class KvCells {
 public:
  virtual ~KvCells() = default;
  virtual Status Read(const KvTensor& tensor, int stream, int64_t first, int64_t count, F16* rows) = 0;
  virtual Status Write(const KvTensor& tensor, int stream, int64_t first, int64_t count, const F16* rows) = 0;
  virtual Status Fork(const KvTensor& tensor, int from, int to) = 0;
  virtual Status Truncate(const KvTensor& tensor, int stream, int64_t rows) = 0;
  virtual int64_t num_rows(const KvTensor& tensor, int stream) const = 0;
  virtual void Clear() = 0;

  virtual Footprint footprint() const = 0;
  virtual size_t memory_bytes() const = 0;
  virtual double seal_seconds() const = 0;

  virtual KvCache* host() { return nullptr; }        ///< null: on a device
  virtual DeviceCache* device() { return nullptr; }  ///< null: in host memory
};

/// Errors: those of KvCache::Create, DeviceCache::Create.
Result<std::unique_ptr<KvCells>> MakeHostCells(const KvSettings& settings, const std::vector<KvLayer>& layers);
Result<std::unique_ptr<KvCells>> MakeDeviceCells(const KvSettings& settings, const std::vector<KvLayer>& layers);

/// Whether a device can do a layer. Errors: NotSupported, naming the layer.
Status CheckDeviceLayer(const KvSettings& settings, const KvLayer& layer, int num_layers);

}  // namespace kvant
