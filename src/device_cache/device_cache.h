// A compressed cache in the memory of a CUDA device, for all layers of a model.
//
// A *step* is a batch of rows that passes through all layers. Begin says which rows and makes room for them; then, for each
// layer in any order: Write, Attend or Decode, Seal. Begin to Seal neither wait for the device nor read what it computes:
// everything is put on one stream, stream(). The calls below "Bytes" wait.
//
// Rows are numbered per stream of cells ("stream" here as in libllama: a sequence's cells), in any order, and may be
// rewritten. The rows of a step are exact when the step reads them: pages are sealed afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/float16.h"
#include "cache/kv_store.h"
#include "codec/codec.h"
#include "device_cache/page_map.h"
#include "kvant/device_codec.h"
#include "kvant/status.h"

namespace kvant {

/// The codecs of a layer.
struct DeviceLayer {
  Codec key;  ///< sizes of its streams, for the footprint
  Codec value;
  std::shared_ptr<const DeviceCodec> codec;  ///< the same two as kernels read them
  int kv_heads = 0;
};

struct DeviceCacheConfig {
  std::vector<DeviceLayer> layers;
  PageMapConfig pages;
  int64_t cells = 0;              ///< rows of a stream, at most
  size_t memory_limit_bytes = 0;  ///< of pages; 0: none
  int device = 0;                 ///< CUDA's number
};

/// Streams first .. first + count - 1, their rows 0 .. cells - 1.
struct StreamRange {
  int first = 0;
  int count = 1;
  int64_t cells = 0;
  bool operator==(const StreamRange&) const = default;
};

/// Which rows a step's queries see.
struct DeviceMask {
  const void* maybe_mask = nullptr;  ///< device fp16 [count, rows, cells]: DeviceTableArgs
  size_t row_stride = 0;             ///< bytes
  size_t stream_stride = 0;
  int rows = 1;  ///< query rows of each stream
};

/// Attention of few query rows.
struct DeviceQueries {
  const float* queries = nullptr;  ///< device [count, rows, q_heads, dim]
  float* out = nullptr;            ///< device, the same shape
  int q_heads = 0;
  float scale = 1.0f;
  float soft_cap = 0.0f;
  const float* maybe_sinks = nullptr;  ///< device [q_heads]
};

/// One host thread at a time.
class DeviceCache {
 public:
  /// Errors: NotSupported (a build without CUDA, no device, a codec that the device cannot encode or decode), OutOfMemory.
  static Result<std::unique_ptr<DeviceCache>> Create(const DeviceCacheConfig& config);
  ~DeviceCache();

  // ---- Steps

  int num_layers() const;
  void* stream() const;  ///< a cudaStream_t
  /// Makes the stream wait for a cudaEvent_t, and records one on it.
  Status WaitFor(void* event);
  Status Record(void* event);

  /// Begins a step. `maybe_range`: what its queries will see, where they are few; all of the step that follows then only launches
  /// kernels, and may be recorded (DeviceLaunch). Errors: OutOfMemory (the limit, the device), and what the device refused since
  /// the last call: InvalidArgument. The cache is as before then.
  Status Begin(std::span<const CellPlace> rows, const StreamRange* maybe_range = nullptr);
  std::span<const CellPlace> rows() const;  ///< of the step under way
  bool written(int layer) const;            ///< in the step under way

  /// What a recorded step depends on beside its arguments: while this is the same, it may be launched again.
  std::vector<uint64_t> LaunchState() const;
  /// A recorded step has been launched: all layers are written.
  void MarkWritten();

  /// `keys` and `values` [rows().size(), kv_heads, dim] as in DeviceCodec::WriteRows; pool and slots are set here.
  Status Write(int layer, DeviceRows keys, DeviceRows values);
  /// What the queries of a step see; once for all layers that see the same.
  Status See(const StreamRange& range, const DeviceMask& mask);
  /// Pages in the tables of what was last seen, over all query rows. Waits for the device.
  Result<int64_t> SeenPages();
  /// Over what was last seen.
  Status Attend(int layer, const DeviceQueries& queries);
  /// Rows of all streams of a range to fp16: device keys and values [count, cells, kv_heads, dim]; rows that are not held
  /// stay. Either may be null. REQUIRES: cells is a multiple of 64
  Status Decode(int layer, const StreamRange& range, void* keys, void* values);
  Status Seal(int layer);
  Status SealAll();

  /// Context shift: keys of a stream are about to be replaced. Errors: OutOfMemory.
  Status BeginShift(int stream);
  /// Keys of the pages with `changed` from `keys` [pages * 64, kv_heads, dim], device fp16.
  Status ReplaceKeys(int layer, int stream, std::span<const uint8_t> changed, const void* keys);

  /// Device memory to host memory, after what other streams have done before; waits.
  Status Fetch(const void* device, size_t bytes, void* host);
  /// Waits for all that was put on the stream, and says what the device refused.
  Status Synchronize();

  // ---- Bytes

  /// Rows to and from fp16 in host memory, [count, kv_heads, dim]. Rows not held give zeros.
  Status Read(int layer, Side side, int stream, int64_t first, int64_t count, F16* rows);
  Status Restore(int layer, Side side, int stream, int64_t first, int64_t count, const F16* rows);

  /// For all layers at once; Fork again for the next tensor changes nothing.
  void Fork(int from, int to);
  void Truncate(int stream, int64_t rows);
  void Clear();

  int64_t num_rows(int stream) const;
  Footprint footprint() const;
  size_t memory_bytes() const;  ///< taken from the device: pages and what steps need beside them

 private:
  struct Impl;
  explicit DeviceCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// NotSupported for a codec that the device attends with, but cannot encode or decode.
Status CheckDeviceCodec(const DeviceCodec& codec);

/// Whether this build has CUDA and there is a device.
bool HasCudaDevice();

}  // namespace kvant
