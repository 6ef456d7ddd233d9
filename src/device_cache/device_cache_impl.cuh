// The inside of DeviceCache: what its parts share. For .cu files.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/cuda.cuh"
#include "base/cuda_buffer.cuh"
#include "device_cache/device_cache.h"
#include "device_cache/device_range.h"

namespace kvant {

using Kind = MappedPage::Kind;

/// Pages decoded to rows at a time where they only pass through (sealing, opening, reading).
constexpr int64_t kBatchPages = 64;
constexpr DeviceSide kSides[2] = {DeviceSide::kKey, DeviceSide::kValue};
constexpr DeviceSide kExactSides[2] = {DeviceSide::kExactKey, DeviceSide::kExactValue};

inline int64_t PagesOf(int64_t rows) { return (rows + kTokensPerPage - 1) / kTokensPerPage; }

/// Where the blocks of K and V of each layer lie in a slot.
struct SlotLayout {
  std::vector<size_t> ofs[2];  ///< [side][layer]
  size_t bytes = 0;

  SlotLayout(const std::vector<DeviceLayer>& layers, const DeviceSide (&sides)[2]) {
    for (const DeviceLayer& layer : layers) {
      for (int side = 0; side < 2; ++side) {
        ofs[side].push_back(bytes);
        bytes += AlignUp(static_cast<size_t>(layer.kv_heads) * layer.codec->BlockBytes(sides[side]), 256);
      }
    }
  }
};

struct DeviceCache::Impl {
  explicit Impl(const DeviceCacheConfig& c)
      : config(c), map(c.pages), exact_slots(c.layers, kExactSides), sealed_slots(c.layers, kSides) {}
  ~Impl() {
    cudaSetDevice(config.device);
    if (stream != nullptr) cudaStreamSynchronize(stream);
    if (stream != nullptr) cudaStreamDestroy(stream);
    if (fetch_stream != nullptr) cudaStreamDestroy(fetch_stream);
    cudaFreeHost(fetched);
    cudaFreeHost(const_cast<int32_t*>(refused));
  }

  const DeviceCacheConfig config;
  PageMap map;
  const SlotLayout exact_slots;
  const SlotLayout sealed_slots;
  cudaStream_t stream = nullptr;
  cudaStream_t fetch_stream = nullptr;
  DeviceRange exact;
  DeviceRange sealed;

  void* fetched = nullptr;  ///< [kFetchBytes], pinned
  // Written by kernels, read by the host: a row that is no fp16 number, a page that kernels cannot read.
  enum Refusal { kRow, kScale, kNumRefusals };
  volatile int32_t* refused = nullptr;  ///< [kNumRefusals], mapped host memory

  Uploader uploader;
  DeviceBuffer step_arrays;
  DeviceBuffer page_lists;
  DeviceBuffer decode_lists;
  DeviceBuffer tables;
  DeviceBuffer workspace;
  DeviceBuffer tickets;
  DeviceBuffer row_scratch;  ///< [kBatchPages, 64, kv_heads, dim] fp16, or rows of a state

  // The step under way.
  struct Step {
    std::vector<CellPlace> rows;
    std::vector<bool> written, sealed;                       ///< [layers]
    std::map<std::pair<int, int64_t>, int32_t> still_exact;  ///< pages that it seals: their exact slots
    const int32_t* targets = nullptr;                        ///< device, as those below
    const int32_t *seal_from = nullptr, *seal_to = nullptr;
    int64_t seals = 0;
    StreamRange listed_range = {.first = 0, .count = 0};  ///< whose pages are in step_arrays
    bool has_decode_lists = false;
    StreamRange decode_range;
  };
  Step step;
  /// Where the lists of pages lie: [sealed, exact].
  struct List {
    size_t pages_ofs = 0, counts_ofs = 0;
    size_t room = 0;  ///< pages of a stream
  };
  List placed[2];
  // What was last seen.
  DevicePages seen_sealed, seen_exact;
  int32_t seen_rows = 0;
  bool just_seen = false;  ///< the tables are what was launched last

  Status MakeCurrent() const {
    KVANT_CUDA_TRY(cudaSetDevice(config.device));
    return Status::Ok();
  }
  const DeviceLayer& layer(int i) const { return config.layers[static_cast<size_t>(i)]; }
  int num_layers() const { return static_cast<int>(config.layers.size()); }
  size_t row_values(int l) const {
    return static_cast<size_t>(layer(l).kv_heads) * static_cast<size_t>(layer(l).codec->dim());
  }

  std::byte* ExactPool(int l, int side) const { return exact.data() + exact_slots.ofs[side][static_cast<size_t>(l)]; }
  std::byte* SealedPool(int l, int side) const {
    return sealed.data() + sealed_slots.ofs[side][static_cast<size_t>(l)];
  }
  int32_t* refusal(Refusal which) const { return const_cast<int32_t*>(refused) + which; }

  Status Init();
  Status Reserve(int64_t exact_end, int64_t sealed_end);
  void Trim();
  Status TakeRefusals();

  // ---- between pools and rows; slots are device arrays
  Status DecodeRows(int l, int side, bool is_exact, int64_t pages, const int32_t* slots, void* rows) const;
  Status EncodeRows(int l, int side, bool is_exact, int64_t pages, const int32_t* slots, const void* rows) const;
  Status Reencode(int l, bool to_exact, int64_t pages, const int32_t* from, const int32_t* to);
  Status Prepare(const PageChanges& changes, size_t opened_from, size_t opened_to);
  Status SealLayer(int l);

  /// Pages are about to change outside of a step: slots that the last one freed may be taken.
  void ForgetStep() {
    step.still_exact.clear();
    step.listed_range = {.first = 0, .count = 0};
    step.has_decode_lists = false;
  }
  void AddLists(const StreamRange& range, ArrayPack* arrays);
  MappedPage PageNow(int s, int64_t page) const;
  std::vector<int32_t> SlotsOf(int s, int64_t first_page, int64_t pages, Kind kind, bool in_step) const;
  template <class T>
  const T* InStep(size_t ofs) const {
    return reinterpret_cast<const T*>(step_arrays.data() + ofs);
  }
};

inline std::vector<int32_t> FromSlots(const std::vector<SlotPair>& pairs) {
  std::vector<int32_t> slots;
  for (const SlotPair& pair : pairs) slots.push_back(pair.from);
  return slots;
}
inline std::vector<int32_t> ToSlots(const std::vector<SlotPair>& pairs) {
  std::vector<int32_t> slots;
  for (const SlotPair& pair : pairs) slots.push_back(pair.to);
  return slots;
}

}  // namespace kvant
