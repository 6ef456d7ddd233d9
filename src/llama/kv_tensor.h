// The tensors of libllama's KV cache, recognised by name: F16 [kv_heads * head_dim, cells, streams].
//
// Their data pointers are addresses without memory; an address says which tensor, stream and cell is meant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "codec/codec.h"
#include "ggml.h"
#include "kvant/shape.h"
#include "kvant/status.h"

namespace kvant {

/// What `cache_k_l<N>` and `cache_v_l<N>` say.
struct KvName {
  Side side;
  int layer;  ///< libllama's layer number
};

/// Cells of one stream; a stream is a sequence of our stores, a cell is a row.
struct KvRange {
  int stream = 0;
  int64_t first_cell = 0;
  size_t byte_in_row = 0;  ///< 0 unless the address lies inside a row
};

/// One K or V of a layer.
struct KvTensor {
  KvName name;
  const std::byte* base;  ///< first address
  int64_t row_values;     ///< kv_heads * head_dim
  int64_t cells;          ///< per stream
  int streams;
  int index = -1;  ///< layer number in our cache; -1 until its head size is known
  int heads = 0;   ///< kv heads; 0: not known yet
  int dim = 0;
  bool before_rope = false;  ///< the codec keeps keys before RoPE; known with `heads`
  RopeShape rope = {};       ///< how the model turns the keys of this layer, where known
  std::string no_rope = {};  ///< why not; empty as long as no write was seen

  size_t row_bytes() const { return static_cast<size_t>(row_values) * sizeof(uint16_t); }
  size_t bytes() const { return row_bytes() * static_cast<size_t>(cells) * static_cast<size_t>(streams); }
  bool Contains(const void* address) const;
  /// REQUIRES: Contains(address)
  KvRange Locate(const void* address) const;
  /// Of a cell as libllama numbers them, over all streams. Errors: Internal (there is none of that number).
  Result<KvRange> PlaceOf(int64_t cell) const;
};

/// Nothing when the name is not one of a K or V cache.
std::optional<KvName> ParseKvName(std::string_view name);
/// True for every tensor of a libllama memory, those of recurrent layers and indexers included.
bool IsCacheName(std::string_view name);

/// NotSupported when a cache tensor is none that we can hold: recurrent state, another type than F16.
Status CheckCacheTensor(const ggml_tensor& tensor);
KvTensor MakeKvTensor(const ggml_tensor& tensor);

}  // namespace kvant
