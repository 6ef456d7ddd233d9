// What libllama's graph nodes on the KV cache mean: rows written, attention, positions shifted.
//
// Only nodes are read here; kv_graph runs them.
#pragma once

#include <cstdint>
#include <span>

#include "ggml.h"
#include "kvant/status.h"
#include "llama/kv_buffer.h"

namespace kvant {

enum class CacheOp {
  kNone,       ///< does not touch a cache of ours
  kView,       ///< a view of a cache tensor; nothing to compute
  kWrite,      ///< SET_ROWS into K or V
  kAttention,  ///< FLASH_ATTN_EXT over K and V
  kShift,      ///< ROPE on K in place: context shift
  kOther,      ///< anything else: refused
};
CacheOp Classify(const ggml_tensor& node);

/// SET_ROWS: row i of `rows` [row_values, count] goes to the cell `cells[i]`, numbered over all streams.
struct WriteOp {
  KvBuffer* cache;
  const KvTensor* tensor;
  const ggml_tensor* rows;                  ///< F32 or F16
  const ggml_tensor* cells;                 ///< I64 or I32 [count]
  const ggml_tensor* maybe_rope = nullptr;  ///< the node that made the rows, when it turned them
  std::span<const int32_t> positions = {};  ///< [count] by which it did; set by kv_graph, where they matter
};

/// FLASH_ATTN_EXT: queries [k_dim, num_queries, q_heads, num_streams] over the first `num_cells` cells of each stream.
struct AttentionOp {
  KvBuffer* cache;
  const KvTensor* keys;
  const KvTensor* values;
  const ggml_tensor* node;  ///< its sources: q, k, v, mask or null, -, sinks or null at 4
  int first_stream;
  int num_streams;
  int64_t num_cells;
  int64_t num_queries;  ///< per stream
  int q_heads;
  float scale;
  float max_bias;  ///< ALiBi; 0: none
  float softcap;   ///< 0: none
};

/// ROPE on K [rotated, kv_heads, cells * streams], in place; row r of the cache turns by `shift[r]` positions.
struct ShiftOp {
  KvBuffer* cache;
  const KvTensor* keys;
  const ggml_tensor* node;
  size_t byte_in_row;  ///< where the rotated part of a row begins
};

/// REQUIRES: Classify says so. Errors: NotSupported, naming layer and reason.
Result<WriteOp> ParseWrite(const ggml_tensor& node);
Result<AttentionOp> ParseAttention(const ggml_tensor& node);
Result<ShiftOp> ParseShift(const ggml_tensor& node);

/// True when the op is ours, false when it is the inner device's. Errors: NotSupported when it touches a cache and we
/// cannot do it, or when the model's cache lies outside our device. Learns the head sizes of the cache's layers.
Result<bool> ClaimOp(const ggml_tensor& op);

}  // namespace kvant
