// Attention over compressed pages on a CUDA device. The caller owns all device memory: pools of blocks, page tables,
// queries, results, workspace. kvant computes what goes into a block, and launches kernels.
//
// Terms as in DESIGN.md. Pages are *sealed* (blocks of the codecs, 64 rows) or *exact* (fp16 rows: sinks, the recent
// window, the page that still fills); both are read in one launch. Blocks on the device have their codes in another
// order than in host memory, at the same size; only Encode, Decode and the Reorder functions know that order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kvant/scheme.h"
#include "kvant/status.h"

namespace kvant {

enum class DeviceSide : int32_t { kKey = 0, kValue = 1, kExactKey = 2, kExactValue = 3 };
enum class DeviceType : int32_t { kF16 = 0, kF32 = 1 };

/// An entry of a page table, 16 bytes.
struct DevicePage {
  uint64_t live = 0;  ///< bit t: row t of the page is visible
  int32_t slot = 0;   ///< index into the pools
  /// Exact pages: query row r does not see the last ahead - r rows of the page, which come after it. Sealed pages: 0.
  int32_t ahead = 0;
};

/// Pages of one kind. All pointers are device memory, 16-byte aligned.
struct DevicePages {
  const void* key_pool = nullptr;    ///< [slots][kv_heads][key block bytes]
  const void* value_pool = nullptr;  ///< [slots][kv_heads][value block bytes]
  const void* table = nullptr;       ///< DevicePage [sequences][max_pages]
  const int32_t* counts = nullptr;   ///< [sequences]: pages in use, 0..max_pages
  int32_t max_pages = 0;             ///< 0: there are none of this kind, the pointers may be null
  /// Bytes from slot to slot, multiples of 16 below 2 GiB, where something else lies between them; 0: kv_heads * block bytes.
  size_t key_stride = 0;
  size_t value_stride = 0;
};

/// DeviceAttendArgs::tickets.
constexpr size_t kDeviceTicketBytes = 4096;

/// One decode step: one query row, or a few (speculative decoding), of `sequences` sequences in one layer. Which pages there are is read on the device, so
/// that a captured launch stays valid while sequences grow up to max_pages.
struct DeviceAttendArgs {
  DevicePages sealed = {};
  DevicePages exact = {};
  int32_t sequences = 0;
  int32_t kv_heads = 0;
  int32_t heads_per_kv = 0;  ///< 1..16
  int32_t rows = 1;          ///< query rows of each sequence, 1..8
  DeviceType query_type = DeviceType::kF16;
  DeviceType out_type = DeviceType::kF16;
  float scale = 1.0f;     ///< scores = scale * q . k
  float soft_cap = 0.0f;  ///< > 0: scores s become soft_cap * tanh(s / soft_cap)
  /// fp32 [kv_heads * heads_per_kv]: attention sinks, logits that only add to the sum of weights. Null: none.
  const float* maybe_sinks = nullptr;
  /// [sequences, rows, kv_heads * heads_per_kv, dim], 16-byte aligned like all pointers here.
  const void* queries = nullptr;
  void* out = nullptr;         ///< the same shape; zeros where a query row sees nothing
  void* workspace = nullptr;   ///< 256-byte aligned
  size_t workspace_bytes = 0;  ///< at least WorkspaceBytes
  /// kDeviceTicketBytes of zeros, left as zeros; one for all steps that never run at the same time. With it, few sequences
  /// take one launch; null: always three.
  void* tickets = nullptr;
  /// The launch before this one on the stream writes no sealed pages, tables or counts (exact rows and queries it may): where one
  /// launch is enough, they are then read while it still runs (sm_90).
  bool sealed_ready = false;
  /// The sequences' lengths differ much: work is cut into equal pieces, not the device into equal parts.
  bool ragged = false;
  /// > 0: partial sums are over stretches of so many pages, in three launches, so that a sequence's result has the same bits on
  /// every device, in every batch and with any max_pages. 0: stretches fit the device.
  int32_t fixed_pages = 0;
};

/// Pages to be encoded on the device, all 64 rows of each, of one side.
struct DeviceEncodeArgs {
  DeviceSide side = DeviceSide::kKey;
  int32_t pages = 0;
  int32_t kv_heads = 0;
  const void* rows = nullptr;      ///< fp16 [pages, 64, kv_heads, dim], finite, 16-byte aligned
  const int32_t* slots = nullptr;  ///< [pages]: where in the pool; negative: this page is left out
  void* pool = nullptr;            ///< [slots][kv_heads][block bytes]
  size_t slot_stride = 0;          ///< as in DevicePages
  /// Set to 1 when a scale does not fit what kernels read (Encode refuses such rows): that page must not be used. The caller
  /// clears and reads it.
  int32_t* refused = nullptr;
};

/// Pages to be decoded on the device, all 64 rows of each, of one side.
struct DeviceDecodeArgs {
  DeviceSide side = DeviceSide::kKey;
  int32_t pages = 0;
  int32_t kv_heads = 0;
  const void* pool = nullptr;      ///< [slots][kv_heads][block bytes]
  size_t slot_stride = 0;          ///< as in DevicePages
  const int32_t* slots = nullptr;  ///< [pages]: where in the pool; negative: this page is left out
  void* rows = nullptr;            ///< fp16 [pages, 64, kv_heads, dim], 16-byte aligned
};

/// Rows of one side to be stored in exact pages as they are, rounded to fp16.
struct DeviceRows {
  const void* rows = nullptr;  ///< [count, kv_heads, dim], 4-byte aligned (fp16) or 16-byte aligned (fp32)
  DeviceType type = DeviceType::kF32;
  size_t row_stride = 0;   ///< bytes, aligned like rows; 0: rows follow one another
  void* pool = nullptr;    ///< of exact pages, [slots][kv_heads][block bytes]
  size_t slot_stride = 0;  ///< as in DevicePages
};

/// Rows of both sides, or of one. No two of them may go to the same place.
struct DeviceWriteArgs {
  DeviceRows keys = {}, values = {};  ///< rows null: none of this side
  int32_t count = 0;
  int32_t kv_heads = 0;
  const int32_t* targets = nullptr;  ///< device [count]: 64 * slot + row of the page; negative: this row is left out
  /// Device or mapped host memory: set to 1 when a value is no finite fp16 number; that page must not be used. The caller clears
  /// and reads it.
  int32_t* refused = nullptr;
};

/// The pages of one kind that the rows of some streams may see. Pointers are device memory, tables and pages 16-byte aligned.
struct DevicePageList {
  /// DevicePage [streams][max_pages]: live = rows held; `ahead` = number of the page: its rows are cells 64 * number and on.
  const void* pages = nullptr;
  const int32_t* counts = nullptr;  ///< [streams]: pages in use, 0..max_pages
  int32_t max_pages = 0;            ///< 0: there are none of this kind, the pointers may be null
  void* table = nullptr;            ///< out: DevicePage [streams * rows][max_pages], ahead = 0
  int32_t* table_counts = nullptr;  ///< out: [streams * rows]
};

/// Page tables for a step in which each of the `rows` query rows of a stream is a sequence of its own.
struct DeviceTableArgs {
  DevicePageList sealed = {};
  DevicePageList exact = {};
  int32_t streams = 0;
  int32_t rows = 0;   ///< of each stream
  int32_t cells = 0;  ///< columns of the mask; cells beyond are not seen
  /// fp16 [streams, rows, cells] by strides, 16-byte aligned: 0 seen, -infinity not (anything below -1e4 counts as not). Null: all
  /// cells are seen, however many.
  const void* maybe_mask = nullptr;
  size_t mask_row_stride = 0;  ///< bytes, multiples of 16
  size_t mask_stream_stride = 0;
};

/// Builds page tables on `stream`, in one launch, without waiting: those of a list's pages, in their order, of which a row holds
/// and sees something, with `live` = rows held and seen. Errors: InvalidArgument; NotSupported in a build without CUDA.
Status BuildPageTables(const DeviceTableArgs& args, void* stream);

/// A codec for keys and one for values, as kernels read them. Immutable after Create; thread-safe.
class DeviceCodec {
 public:
  /// Errors: InvalidArgument (unknown codec or option), NotSupported (head size, codec, option or pair of widths without
  /// a kernel; a build without CUDA). Needs no GPU.
  static Result<std::unique_ptr<DeviceCodec>> Create(const CodecChoice& key, const CodecChoice& value, int dim);
  ~DeviceCodec();

  int dim() const;
  /// Bytes of the block of one KV head in one page.
  size_t BlockBytes(DeviceSide side) const;

  /// rows [64, dim], host memory -> block, host memory, in device order: ready to be copied into a pool. Errors:
  /// InvalidArgument when a value or a derived scale does not fit.
  Status Encode(DeviceSide side, const float* rows, void* block) const;
  /// The inverse; the definition of what a block means. Corruption when it is none.
  Status Decode(DeviceSide side, const void* block, float* rows) const;

  /// Encodes on `stream`, without waiting. The bytes are those of Encode; with codecs that sum before they round, codes may
  /// differ by a step as between SIMD targets. Errors: InvalidArgument; NotSupported for codes that only the CPU encodes.
  /// Sketched keys: see WorkspaceBytes.
  Status EncodePages(const DeviceEncodeArgs& args, void* stream) const;

  /// Decodes on `stream`, without waiting: for attention of many query rows over a compressed prefix, which is fastest by
  /// kernels that read fp16 (docs/cuda.md). Values are those of Decode, rounded to fp16. Errors: InvalidArgument;
  /// NotSupported for sketched keys.
  Status DecodePages(const DeviceDecodeArgs& args, void* stream) const;

  /// Writes rows into exact pages on `stream`, in one launch, without waiting. The bytes are those of Encode; rows that are not
  /// written stay. Errors: InvalidArgument.
  Status WriteRows(const DeviceWriteArgs& args, void* stream) const;

  /// What Attend needs for these shapes on the current device; call it before a graph is captured. Pointers are not read.
  /// The matrix of sketched keys (up to 0.4 MB) is kvant's own, a variable of the program that nobody allocates: the first
  /// call for a device, or of EncodePages, fills it and waits for that.
  Result<size_t> WorkspaceBytes(const DeviceAttendArgs& args) const;
  /// Launches one kernel, or three, on `stream` (a cudaStream_t). Neither waits nor allocates. For the same device, arguments
  /// and pages in use the result is the same to the bit.
  Status Attend(const DeviceAttendArgs& args, void* stream) const;

 private:
  struct Impl;
  explicit DeviceCodec(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvant
