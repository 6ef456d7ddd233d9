// What kernels see of a cache: plain views of pages, grouped into runs. Allocates nothing, owns nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvant {

/// One page of one layer and side: the blocks of all KV heads, one after the other.
struct PageView {
  const std::byte* blocks;  ///< [kv_heads, block_bytes]
  int64_t first_row;        ///< row (cache cell) of the page's token 0
  uint64_t live;            ///< bit t: token t was written and is represented here
  /// [tokens] of codecs that keep keys before RoPE; else null.
  const int32_t* maybe_positions = nullptr;
};

}  // namespace kvant
