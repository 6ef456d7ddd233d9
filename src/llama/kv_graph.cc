#include "llama/kv_graph.h"

#include <algorithm>
#include <new>
#include <numeric>

#include "base/check.h"
#include "llama/kv_steps.h"

namespace kvant {
namespace {

// Head room when scratch grows: a prompt adds cells with every chunk.
constexpr size_t kGrowthPercent = 25;

Status Grow(MappedMemory* memory, int64_t values) {
  const size_t bytes = static_cast<size_t>(values) * sizeof(F16);
  if (memory->bytes() >= bytes) return Status::Ok();
  *memory = {};  // free before taking more
  *memory = MappedMemory(bytes + bytes * kGrowthPercent / 100);
  if (memory->data() != nullptr) return Status::Ok();
  return Status::OutOfMemory(StrFormat("no memory to decode a layer for prefill (%zu bytes)", bytes));
}

// A cache that can be used: its stores exist and nothing was lost in it.
Status CheckUsable(KvBuffer* cache, const KvTensor& tensor) {
  KVANT_TRY(cache->EnsureCache());
  KVANT_TRY(cache->damage());
  if (tensor.index >= 0) return Status::Ok();
  return Status::NotSupported(StrFormat("layer %d was not there when the context was planned", tensor.name.layer));
}

// libllama's view ends behind its last used cell (rounded up to 256), so rows behind that are free. It never says so
// otherwise: this is how removed tokens give their memory back.
Status DropFreeCells(const AttentionOp& op) {
  for (const KvTensor* tensor : {op.keys, op.values}) {
    KvStore& store = op.cache->store(*tensor);
    for (int stream = op.first_stream; stream < op.first_stream + op.num_streams; ++stream) {
      if (store.num_rows(stream) > op.num_cells) KVANT_TRY(store.Truncate(stream, op.num_cells));
    }
  }
  return Status::Ok();
}

// Rows of F16 at `data` in the place of a cache view: [dim, cells, heads, streams] by strides.
void PointAtScratch(ggml_tensor* tensor, F16* data, size_t row_bytes) {
  tensor->op = GGML_OP_NONE;
  tensor->buffer = nullptr;
  tensor->view_src = nullptr;
  tensor->data = data;
  tensor->nb[1] = row_bytes;
  tensor->nb[2] = static_cast<size_t>(tensor->ne[0]) * sizeof(F16);
  tensor->nb[3] = static_cast<size_t>(tensor->ne[1]) * row_bytes;
}

}  // namespace

Result<ggml_status> KvGraph::Compute(ggml_backend_t inner, ggml_cgraph* graph) {
  status_ = Status::Ok();
  try {
    KVANT_TRY(Rewrite(*graph));
  } catch (const std::bad_alloc&) {
    return Status::OutOfMemory("no memory to prepare a graph");
  }
  if (steps_.empty()) return ggml_backend_graph_compute(inner, graph);
  // The counts of uses, by which ggml fuses nodes, stay right: they are looked up by the nodes that we keep.
  ggml_cgraph rewritten = *graph;
  rewritten.nodes = nodes_.data();
  rewritten.n_nodes = rewritten.size = static_cast<int>(nodes_.size());
  const ggml_status inner_status = ggml_backend_graph_compute(inner, &rewritten);
  KVANT_TRY(status_);
  return inner_status;
}

void KvGraph::SetThreads(int num_threads) {
  for (int size = static_cast<int>(barriers_.size()); size <= num_threads; ++size) {
    barriers_.push_back(std::make_unique<Barrier>(size));
  }
}

// ---- Rewriting ----

Status KvGraph::Rewrite(const ggml_cgraph& graph) {
  nodes_.clear();
  tensors_.clear();
  steps_.clear();
  ropes_.clear();
  positions_.clear();
  KVANT_TRY(ReserveScratch(graph));
  for (int i = 0; i < graph.n_nodes; ++i) KVANT_TRY(AddNode(graph.nodes[i]));
  return Status::Ok();
}

// Before any node is planned, since nodes hold pointers into the scratch memory.
Status KvGraph::ReserveScratch(const ggml_cgraph& graph) {
  int64_t keys = 0;
  int64_t values = 0;
  for (int i = 0; i < graph.n_nodes; ++i) {
    const CacheOp kind = Classify(*graph.nodes[i]);
    if (kind == CacheOp::kAttention) {
      const Result<AttentionOp> op = ParseAttention(*graph.nodes[i]);
      if (!op.ok()) return op.status();
      if (op->num_queries <= kMaxFusedQueries) continue;
      keys = std::max(keys, op->num_cells * op->num_streams * op->keys->row_values);
      values = std::max(values, op->num_cells * op->num_streams * op->values->row_values);
    } else if (kind == CacheOp::kShift) {
      const Result<ShiftOp> op = ParseShift(*graph.nodes[i]);
      if (!op.ok()) return op.status();
      if (!op->keys->before_rope) keys = std::max(keys, op->keys->cells * op->keys->row_values);
    }
  }
  if (keys == 0) scratch_ = {};
  KVANT_TRY(Grow(&scratch_.keys, keys));
  return Grow(&scratch_.values, values);
}

Status KvGraph::AddNode(ggml_tensor* node) {
  const CacheOp kind = Classify(*node);
  if (kind == CacheOp::kNone || kind == CacheOp::kView) {
    if (node->op == GGML_OP_ROPE) ropes_.push_back(node);
    nodes_.push_back(node);
  } else if (kind == CacheOp::kWrite) {
    Result<WriteOp> op = ParseWrite(*node);
    if (!op.ok()) return op.status();
    KVANT_TRY(CheckUsable(op->cache, *op->tensor));
    const Result<std::span<const int32_t>> positions = PositionsOf(*op);
    if (!positions.ok()) return positions.status();
    op->positions = *positions;
    AddWrite(*op);
  } else if (kind == CacheOp::kAttention) {
    const Result<AttentionOp> op = ParseAttention(*node);
    if (!op.ok()) return op.status();
    KVANT_TRY(CheckUsable(op->cache, *op->keys));
    KVANT_TRY(DropFreeCells(*op));
    op->num_queries <= kMaxFusedQueries ? AddAttention(*op) : AddPrefill(*op);
  } else if (kind == CacheOp::kShift) {
    const Result<ShiftOp> op = ParseShift(*node);
    if (!op.ok()) return op.status();
    KVANT_TRY(CheckUsable(op->cache, *op->keys));
    op->keys->before_rope ? AddMove(*op) : AddShift(*op);
  } else {
    return ClaimOp(*node).status();
  }
  return Status::Ok();
}

void KvGraph::AddWrite(const WriteOp& op) {
  AddStep(*op.rows, [op](const Team& team) { return WriteCells(team, op); });
}

// Copied before the graph runs: once the last ROPE node has read them, their memory may serve other nodes.
Result<std::span<const int32_t>> KvGraph::PositionsOf(const WriteOp& op) {
  if (!op.tensor->before_rope) return std::span<const int32_t>();
  const auto unknown = [&op](const char* why) {
    return Status::NotSupported(
        StrFormat("layer %d: the positions of new keys are not known, %s", op.tensor->name.layer, why));
  };
  if (op.maybe_rope == nullptr || std::ranges::find(ropes_, op.maybe_rope) == ropes_.end()) {
    return unknown("they are turned in another graph than they are written");
  }
  const ggml_tensor* source = op.maybe_rope->src[1];
  if (source->op != GGML_OP_NONE || source->type != GGML_TYPE_I32 || source->ne[0] != op.rows->ne[1]) {
    return unknown("the graph computes them");
  }
  std::vector<int32_t>& copy = positions_[source];
  if (copy.empty()) {
    const auto* data = static_cast<const int32_t*>(source->data);
    copy.assign(data, data + source->ne[0]);
  }
  return std::span<const int32_t>(copy);
}

void KvGraph::AddAttention(const AttentionOp& op) {
  auto job = std::make_shared<FusedAttention>(op, &workspace_);
  AddStep(*op.node, [op, job](const Team& team) {
    KVANT_TRY(job->Run(team));
    return SealStreams(team, op);
  });
}

void KvGraph::AddPrefill(const AttentionOp& op) {
  F16* const keys = scratch_.key_rows();
  F16* const values = scratch_.value_rows();
  AddStep(*op.node, [op, keys, values](const Team& team) { return DecodeLayer(team, op, keys, values); });
  ggml_tensor* attention = Copy(*op.node);
  attention->src[1] = Copy(*op.node->src[1]);
  attention->src[2] = Copy(*op.node->src[2]);
  PointAtScratch(attention->src[1], keys, op.keys->row_bytes());
  PointAtScratch(attention->src[2], values, op.values->row_bytes());
  nodes_.push_back(attention);
  AddStep(*op.node, [op](const Team& team) { return SealStreams(team, op); });
}

void KvGraph::AddShift(const ShiftOp& op) {
  const KvStore& store = op.cache->store(*op.keys);
  for (int stream = 0; stream < op.keys->streams; ++stream) {
    const int64_t rows = store.num_rows(stream);
    if (rows == 0) continue;
    const RowTarget scratch{scratch_.key_rows(), static_cast<size_t>(op.keys->row_values)};
    AddStep(*op.node,
            [&store, stream, rows, scratch](const Team& team) { return store.Read(team, stream, 0, rows, scratch); });
    ggml_tensor* rotate = Copy(*op.node);
    rotate->data = reinterpret_cast<std::byte*>(scratch.data) + op.byte_in_row;
    rotate->view_src = nullptr;
    rotate->buffer = nullptr;
    rotate->ne[2] = rows;
    rotate->src[0] = Copy(*rotate);
    rotate->src[0]->op = GGML_OP_NONE;
    ggml_tensor* shift = rotate->src[1] = Copy(*op.node->src[1]);
    shift->ne[0] = rows;
    shift->data = static_cast<std::byte*>(shift->data) + static_cast<size_t>(stream * op.keys->cells) * shift->nb[0];
    nodes_.push_back(rotate);
    AddStep(*op.node, [op, shift, scratch, rows, stream](const Team& team) {
      return WriteShifted(team, op, stream, {static_cast<const int32_t*>(shift->data), static_cast<size_t>(rows)},
                          scratch);
    });
  }
}

void KvGraph::AddMove(const ShiftOp& op) {
  for (int stream = 0; stream < op.keys->streams; ++stream) {
    AddStep(*op.node, [op, stream](const Team& team) {
      const auto cells = static_cast<size_t>(op.keys->cells);
      const auto* shift = static_cast<const int32_t*>(op.node->src[1]->data) + static_cast<size_t>(stream) * cells;
      return op.cache->store(*op.keys).MovePositions(team, stream, {shift, cells});
    });
  }
}

ggml_tensor* KvGraph::Copy(const ggml_tensor& node) { return &tensors_.emplace_back(node); }

// Shape and data of `like` are for the inner backend's eyes only: a node must not look empty.
void KvGraph::AddStep(const ggml_tensor& like, Work work) {
  Step* step = &steps_.emplace_back(Step{this, std::move(work)});
  ggml_tensor* node = Copy(like);
  node->op = GGML_OP_CUSTOM;
  node->flags = GGML_TENSOR_FLAG_COMPUTE;
  node->view_src = nullptr;
  std::ranges::fill(node->src, nullptr);
  const ggml_custom_op_params params = {.fun = RunStep, .n_tasks = GGML_N_TASKS_MAX, .userdata = step};
  std::memcpy(node->op_params, &params, sizeof(params));
  nodes_.push_back(node);
}

// ---- Running ----

void KvGraph::RunStep(ggml_tensor*, int rank, int size, void* data) {
  const Step& step = *static_cast<Step*>(data);
  KvGraph& graph = *step.graph;
  if (!graph.status_.ok()) return;  // set by an earlier step, so all members agree
  KVANT_CHECK(static_cast<size_t>(size) < graph.barriers_.size());
  const Team team(rank, size, graph.barriers_[static_cast<size_t>(size)].get());
  Status status = step.work(team);
  // Work that fails has had a barrier, so every member has looked at status_ by now.
  if (team.leader() && !status.ok()) graph.status_ = std::move(status);
}

std::unique_ptr<GraphRunner> NewHostGraph() { return std::make_unique<KvGraph>(); }

}  // namespace kvant
