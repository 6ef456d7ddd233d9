// What a graph does to the caches on a CUDA device, before it runs.
#pragma once

#include <optional>
#include <vector>

#include "ggml-impl.h"
#include "llama/kv_ops.h"

namespace kvant {

/// One cache.
struct CacheStep {
  WriteOp first_write;
  std::vector<WriteOp> writes = {};
  std::optional<AttentionOp> first_attention = {};
};

struct GraphOutline {
  uint64_t uid = 0;  ///< of the graph that it is known to be of; 0: none
  std::vector<CacheStep> steps;
  bool can_record = false;  ///< it is all of a step, and nothing in it waits
};

/// Errors: NotSupported (a write or an attention that kvant cannot do), damage of a cache.
Result<GraphOutline> OutlineOf(const ggml_cgraph& graph);

/// A cache that can be used: its cells exist and nothing was lost in it. Errors: as above.
Status CheckUsable(KvBuffer* cache, const KvTensor& tensor);

}  // namespace kvant
