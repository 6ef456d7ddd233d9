// The cache behind libllama's KV tensors: address space for libllama, pages for us.
//
// Life: Create (addresses only) -> AddTensor for each cache tensor -> LearnHeads for each layer, when libllama plans
// its attention nodes -> EnsureCache, before the first row is written or read (the stores exist from here on).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/kv_store.h"
#include "kvant/kv_cache.h"
#include "kvant/shape.h"
#include "llama/kv_cells.h"
#include "llama/kv_tensor.h"

namespace kvant {

/// One cache of one context (a model with sliding windows has two). One thread at a time, except where a Team is
/// passed to a store.
class KvBuffer {
 public:
  /// Reserves `bytes` of address space. Errors: OutOfMemory (address space).
  static Result<std::unique_ptr<KvBuffer>> Create(const KvSettings& settings, size_t bytes);
  ~KvBuffer();

  void* base() const { return base_; }
  void AddTensor(const ggml_tensor& tensor);
  /// Null when the address is not in a cache tensor.
  const KvTensor* Find(const void* address) const;

  /// Errors: NotSupported when head count and size do not make up the tensor's rows; those of MakeCodec for the scheme.
  Status LearnHeads(const KvTensor& tensor, int64_t heads, int64_t dim);
  /// How a layer's keys are turned, or why that is not known. Errors: NotSupported when the scheme's codec must know.
  Status LearnRope(const KvTensor& tensor, const Result<RopeShape>& rope);
  /// Whether the device can do a layer whose heads are known; always, in host memory. Errors: NotSupported.
  Status CheckLayer(const KvTensor& keys, const KvTensor& values) const;
  /// Makes the stores of all layers whose heads are known. Errors: those of KvCache::Create.
  Status EnsureCache();
  /// For caches in host memory. REQUIRES: EnsureCache() succeeded and tensor.index >= 0
  KvStore& store(const KvTensor& tensor) const;
  bool on_cuda() const { return settings_.on_cuda; }
  /// For caches on a device. REQUIRES: EnsureCache() succeeded
  DeviceCache& device() const { return *cells_->device(); }

  // What the host does to the tensors' bytes. Offsets and sizes in bytes from `address`.
  Status ReadBytes(const void* address, std::span<std::byte> out);
  Status WriteBytes(const void* address, std::span<const std::byte> in);
  /// Zeros; rows at the end of a stream are forgotten.
  Status ZeroBytes(const void* address, size_t bytes);
  /// Copies whole streams between tensors of the same side and layer; pages are shared.
  Status CopyStream(const void* from, const void* to, size_t bytes);
  void Clear();

  /// A failure that could not be reported where it happened (libllama's set and copy return nothing): reported by the
  /// next graph, until Clear.
  const Status& damage() const { return damage_; }
  void set_damage(Status status);

  /// Where the host reads how large the buffer is: the addresses until the cache is cleared for the first time, then, after each
  /// Report, what it really holds (at least 1, since ggml leaves empty buffers out).
  void ReportTo(size_t* bytes) { reported_bytes_ = bytes; }
  void Report();
  Footprint footprint() const;
  size_t memory_bytes() const;
  double seal_seconds() const;

 private:
  KvBuffer(const KvSettings& settings, void* base, size_t bytes) : settings_(settings), base_(base), bytes_(bytes) {}
  /// The tensor at an address, its store made; an error when the model never showed that layer.
  Result<const KvTensor*> FindStored(const void* address);
  int num_layers() const;
  KvTensor& Known(const KvTensor& tensor) { return tensors_[static_cast<size_t>(&tensor - tensors_.data())]; }
  Status CheckLayers() const;
  Status CheckRope(const KvTensor& tensor) const;

  const KvSettings settings_;
  void* const base_;
  const size_t bytes_;
  std::vector<KvTensor> tensors_;
  std::unique_ptr<KvCells> cells_;
  Status damage_;
  size_t* reported_bytes_ = nullptr;
  bool cleared_ = false;
};

}  // namespace kvant
