#include "llama/device_outline.h"

#include <algorithm>

#include "device_cache/device_cache.h"
#include "llama/graph_runner.h"

namespace kvant {

Status CheckUsable(KvBuffer* cache, const KvTensor& tensor) {
  KVANT_TRY(cache->EnsureCache());
  KVANT_TRY(cache->damage());
  if (tensor.index >= 0) return Status::Ok();
  return Status::NotSupported(StrFormat("layer %d was not there when the context was planned", tensor.name.layer));
}

Result<GraphOutline> OutlineOf(const ggml_cgraph& graph) {
  GraphOutline outline;
  bool can_record = true;
  const auto step_of = [&](KvBuffer* cache) {
    return std::ranges::find_if(outline.steps, [&](const CacheStep& s) { return s.first_write.cache == cache; });
  };
  std::vector<AttentionOp> attentions;
  for (int i = 0; i < graph.n_nodes; ++i) {
    const ggml_tensor& node = *graph.nodes[i];
    const CacheOp kind = Classify(node);
    if (kind == CacheOp::kWrite) {
      const Result<WriteOp> op = ParseWrite(node);
      if (!op.ok()) return op.status();
      KVANT_TRY(CheckUsable(op->cache, *op->tensor));
      if (step_of(op->cache) == outline.steps.end()) outline.steps.push_back({.first_write = *op});
      step_of(op->cache)->writes.push_back(*op);
    } else if (kind == CacheOp::kAttention) {
      const Result<AttentionOp> op = ParseAttention(node);
      if (!op.ok()) return op.status();
      attentions.push_back(*op);
      can_record &= op->num_queries <= kMaxFusedQueries;
    }
    // What makes the inner backend wait, or us.
    can_record &= node.op != GGML_OP_MUL_MAT_ID && kind != CacheOp::kShift && kind != CacheOp::kOther;
  }
  for (const AttentionOp& op : attentions) {
    const auto step = step_of(op.cache);
    if (step != outline.steps.end() && !step->first_attention) step->first_attention = op;
  }
  for (const CacheStep& step : outline.steps) {
    can_record &= step.first_attention.has_value() &&
                  step.writes.size() == 2 * static_cast<size_t>(step.first_write.cache->device().num_layers());
  }
  outline.can_record = can_record && !outline.steps.empty();
  return outline;
}

}  // namespace kvant
