// Attention of a few query rows over the compressed pages of one layer and sequence. Nothing is decoded to memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/float16.h"
#include "base/team.h"
#include "cache/kv_store.h"
#include "kvant/status.h"

namespace kvant {

/// One layer, one sequence, `num_queries` query rows with `q_heads` heads each; head h reads KV head h / (q_heads /
/// kv_heads). Every query row sees the rows that the mask allows; without a mask all rows held.
struct AttendArgs {
  std::span<const PageRun> keys = {};    ///< KvStore::View of the K store
  std::span<const PageRun> values = {};  ///< the same rows of the V store
  int kv_heads = 0;
  int q_heads = 0;  ///< 1..16 times kv_heads
  int k_dim = 0;
  int v_dim = 0;
  int num_queries = 1;

  const float* queries = nullptr;  ///< [num_queries, q_heads, k_dim] with these strides in floats
  size_t query_row_stride = 0;
  size_t query_head_stride = 0;
  float* out = nullptr;  ///< [num_queries, q_heads, v_dim]
  size_t out_row_stride = 0;
  size_t out_head_stride = 0;

  float scale = 1.0f;         ///< scores = scale * q . k
  float softcap = 0.0f;       ///< 0: none; else scores = softcap * tanh(scores / softcap)
  const F16* mask = nullptr;  ///< additive, [num_queries, mask_columns]; -inf hides a row; null: all visible
  size_t mask_row_stride = 0;
  int64_t mask_columns = 0;             ///< rows >= mask_columns are hidden
  const float* maybe_slopes = nullptr;  ///< ALiBi [q_heads]: the mask is multiplied by it
  const float* maybe_sinks = nullptr;   ///< [q_heads]: logit of an extra column without a value (attention sinks)
};

/// Bytes of scratch memory (64-byte aligned) that Attend needs for a team of this size.
size_t AttendWorkspaceBytes(const AttendArgs& args, int team_size);

/// Called by every member of the team with the same arguments. A query row that sees nothing gives zeros.
void Attend(const Team& team, const AttendArgs& args, std::byte* workspace);

}  // namespace kvant
