// ggml's own fp16 attention on its CPU backend: the other 16-bit kernel that `kvant bench` measures against.
#pragma once

#include <cstdint>
#include <memory>

#include "base/float16.h"
#include "kvant/status.h"

namespace kvant {

struct StockAttentionShape {
  int kv_heads = 0;
  int q_heads = 0;
  int dim = 0;
  int64_t tokens = 0;
  int threads = 1;
};

/// One decode step: one query row over fp16 K and V [kv_heads, tokens, dim] that it holds.
class StockAttention {
 public:
  /// NotSupported without libllama; OutOfMemory.
  static Result<std::unique_ptr<StockAttention>> Create(const StockAttentionShape& shape);
  virtual ~StockAttention() = default;

  virtual F16* keys() = 0;
  virtual F16* values() = 0;
  /// queries [q_heads, dim], scale 1 / sqrt(dim); the result [q_heads, dim] is valid until the next call, null: failed.
  virtual const float* Run(const float* queries) = 0;
};

}  // namespace kvant
