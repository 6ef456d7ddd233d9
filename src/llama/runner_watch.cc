#include "llama/runner_watch.h"

#include <cstring>
#include <optional>

#include "llama/kv_tensor.h"

namespace kvant {
namespace {

// How far behind a stored row a ROPE may be, reshapes and norms included.
constexpr int kMaxDepth = 8;

const ggml_tensor* Base(const ggml_tensor* tensor) { return tensor->view_src ? tensor->view_src : tensor; }

// The cache tensor that a node writes or reads.
std::optional<KvName> CacheBehind(const ggml_tensor* tensor) {
  return tensor == nullptr ? std::nullopt : ParseKvName(Base(tensor)->name);
}

bool IsView(const ggml_tensor& node) {
  return node.op == GGML_OP_VIEW || node.op == GGML_OP_RESHAPE || node.op == GGML_OP_PERMUTE;
}

// A matrix of floats in memory, one row per token.
bool IsRows(const ggml_tensor& rows) { return rows.type == GGML_TYPE_F32 && rows.nb[0] == sizeof(float) && rows.data; }

std::pair<std::string, int> Id(const ggml_tensor& node) { return {node.name, node.op}; }

}  // namespace

bool NodeWatch::OnNode(ggml_tensor* node, bool ask, void* watch) {
  auto& self = *static_cast<NodeWatch*>(watch);
  if (ask) return self.Ask(*node);
  self.Show(*node);
  return true;
}

bool NodeWatch::Ask(const ggml_tensor& node) {
  if (node.op == GGML_OP_SET_ROWS) return CacheBehind(&node).has_value();
  if (node.op == GGML_OP_FLASH_ATTN_EXT) return CacheBehind(node.src[1]).has_value();
  return before_rope_.contains(Id(node));
}

void NodeWatch::Show(const ggml_tensor& node) {
  if (node.op == GGML_OP_SET_ROWS) return ShowStored(node);
  if (node.op == GGML_OP_FLASH_ATTN_EXT) return ShowQueries(node);
  // Keys before RoPE [dim, heads, tokens].
  const bool dense_heads = node.nb[1] == static_cast<size_t>(node.ne[0]) * sizeof(float);
  if (!IsRows(node) || !dense_heads) return;
  watcher_->Add(RowKind::kKeyBeforeRope, before_rope_.at(Id(node)), node.ne[2],
                static_cast<int>(node.ne[0] * node.ne[1]), static_cast<const float*>(node.data),
                node.nb[2] / sizeof(float));
}

// Nothing has been computed since, so the rows are still there.
void NodeWatch::ShowStored(const ggml_tensor& node) {
  const KvName name = *CacheBehind(&node);
  const ggml_tensor& rows = *node.src[0];
  if (!IsRows(rows)) return;
  const auto add = [&](RowKind kind) {
    watcher_->Add(kind, name.layer, rows.ne[1], static_cast<int>(rows.ne[0]), static_cast<const float*>(rows.data),
                  rows.nb[1] / sizeof(float));
  };
  if (name.side == Side::kValue) return add(RowKind::kValue);
  add(RowKind::kKey);
  if (!watcher_->Wants(RowKind::kKeyBeforeRope)) return;
  LearnRope(rows, name.layer);
  if (no_rope_.contains(name.layer)) add(RowKind::kKeyBeforeRope);
}

// A ROPE with something between it and the cache but reshapes is one that we do not understand: no keys are shown.
void NodeWatch::LearnRope(const ggml_tensor& stored, int layer) {
  const ggml_tensor* node = &stored;
  bool direct = true;
  for (int depth = 0; depth < kMaxDepth && node != nullptr; ++depth, node = node->src[0]) {
    if (node->op == GGML_OP_ROPE) {
      if (direct) before_rope_[Id(*node->src[0])] = layer;
      return;
    }
    direct = direct && (IsView(*node) || node == &stored);
    if (node->op == GGML_OP_MUL_MAT) break;  // the projection: RoPE comes after it
  }
  no_rope_.insert(layer);
}

void NodeWatch::ShowQueries(const ggml_tensor& node) {
  const ggml_tensor& q = *node.src[0];  // [dim, tokens, heads, streams]
  if (!IsRows(q) || q.ne[3] != 1) return;
  float scale = 0.0f;  // the first of the node's parameters
  std::memcpy(&scale, node.op_params, sizeof(scale));
  queries_.clear();
  for (int64_t token = 0; token < q.ne[1]; ++token) {
    for (int64_t head = 0; head < q.ne[2]; ++head) {
      const auto* row =
          reinterpret_cast<const float*>(static_cast<const std::byte*>(q.data) + static_cast<size_t>(token) * q.nb[1] +
                                         static_cast<size_t>(head) * q.nb[2]);
      for (int64_t c = 0; c < q.ne[0]; ++c) queries_.push_back(row[c] * scale);
    }
  }
  const auto width = static_cast<size_t>(q.ne[0] * q.ne[2]);
  watcher_->Add(RowKind::kQuery, CacheBehind(node.src[1])->layer, q.ne[1], static_cast<int>(width), queries_.data(),
                width);
}

}  // namespace kvant
