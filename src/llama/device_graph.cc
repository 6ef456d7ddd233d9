#include "llama/device_graph.h"

#include <algorithm>
#include <new>
#include <tuple>
#include <utility>

namespace kvant {
namespace {

// Scratch is kept for so many graphs that do not need it: prompts come in chunks, and with tokens of others between them.
constexpr int kKeepScratch = 32;
// Beyond kMaxFusedQueries rows, pages are read if all rows together see at most so many times the pages there are.
constexpr int64_t kMostRowsAskedFor = 64;

bool ComputesNothing(const ggml_tensor& node) {
  return node.op == GGML_OP_NONE || node.op == GGML_OP_VIEW || node.op == GGML_OP_RESHAPE ||
         node.op == GGML_OP_PERMUTE || node.op == GGML_OP_TRANSPOSE || ggml_is_empty(&node);
}

StreamRange RangeOf(const AttentionOp& op) { return {op.first_stream, op.num_streams, op.num_cells}; }

DeviceRows RowsOf(const WriteOp* maybe_op) {
  if (maybe_op == nullptr) return {};
  return {.rows = maybe_op->rows->data,
          .type = maybe_op->rows->type == GGML_TYPE_F16 ? DeviceType::kF16 : DeviceType::kF32,
          .row_stride = maybe_op->rows->nb[1]};
}

int64_t PagesOf(int64_t rows) { return (rows + kTokensPerPage - 1) / kTokensPerPage; }

}  // namespace

DeviceGraph::DeviceGraph(ggml_backend_dev_t inner)
    : device_(inner), inner_done_(ggml_backend_event_new(inner)), ours_done_(ggml_backend_event_new(inner)) {}

DeviceGraph::~DeviceGraph() {
  ggml_backend_event_free(inner_done_);
  ggml_backend_event_free(ours_done_);
}

Result<ggml_status> DeviceGraph::Compute(ggml_backend_t inner, ggml_cgraph* graph) {
  inner_ = inner;
  graph_ = graph;
  piece_.clear();
  piece_is_ours_ = false;
  ++inner_work_;
  tensors_.clear();
  write_ops_.clear();
  pending_ = {};
  seen_.clear();
  shifts_.clear();
  try {
    if (graph->uid == 0 || graph->uid != outline_.uid) {
      Result<GraphOutline> outline = OutlineOf(*graph);
      if (!outline.ok()) return outline.status();
      outline_ = *std::move(outline);
    }
    KVANT_TRY(BeginSteps());
    const std::vector<uint64_t> state = StateToRecord();
    const bool twice = !state.empty() && state == last_;
    last_ = state;
    if (twice && state != recorded_) {
      recorded_ = Record().ok() ? state : std::vector<uint64_t>();
      if (recorded_.empty()) last_.clear();
    }
    KVANT_TRY(twice && state == recorded_ ? Replay() : RunNodes());
    if (!keys_.empty() && ++graphs_without_scratch_ > kKeepScratch) {
      keys_.Free();
      values_.Free();
    }
  } catch (const std::bad_alloc&) {
    return Status::OutOfMemory("no memory to prepare a graph");
  }
  return GGML_STATUS_SUCCESS;
}

Status DeviceGraph::RunNodes() {
  for (int i = 0; i < graph_->n_nodes; ++i) KVANT_TRY(AddNode(graph_->nodes[i]));
  KVANT_TRY(RunWrites());
  return Submit();
}

// ---- Recording

// What a recorded step depends on; empty: this one cannot be recorded, or libllama does not say which graph it is.
std::vector<uint64_t> DeviceGraph::StateToRecord() const {
  if (graph_->uid == 0 || !outline_.can_record) return {};
  std::vector<uint64_t> state = {graph_->uid};
  for (const CacheStep& step : outline_.steps) {
    const std::vector<uint64_t> more = step.first_write.cache->device().LaunchState();
    state.insert(state.end(), more.begin(), more.end());
  }
  return state;
}

// The main stream waits for all that is under way.
Status DeviceGraph::Gather() {
  ggml_backend_event_record(inner_done_, inner_);
  KVANT_TRY(main().WaitFor(inner_done_->context));
  for (const CacheStep& step : outline_.steps) {
    DeviceCache& cache = step.first_write.cache->device();
    if (&cache == &main()) continue;
    KVANT_TRY(cache.Record(ours_done_->context));
    KVANT_TRY(main().WaitFor(ours_done_->context));
  }
  return Status::Ok();
}

Status DeviceGraph::Record() {
  KVANT_TRY(Gather());
  KVANT_TRY(launch_.Begin(main().stream()));
  recording_ = true;
  Status status = Leave(&main());  // the inner backend's stream is recorded from here on
  ++inner_work_;
  if (status.ok()) status = RunNodes();
  ggml_backend_event_record(inner_done_, inner_);
  if (status.ok()) status = main().WaitFor(inner_done_->context);
  recording_ = false;
  const Status ended = launch_.End(main().stream());
  pending_ = {};
  seen_.clear();
  ++inner_work_;
  return status.ok() ? ended : status;
}

Status DeviceGraph::Replay() {
  KVANT_TRY(Gather());
  KVANT_TRY(launch_.Launch(main().stream()));
  KVANT_TRY(Leave(&main()));
  for (const CacheStep& step : outline_.steps) {
    DeviceCache& cache = step.first_write.cache->device();
    if (&cache != &main()) KVANT_TRY(cache.WaitFor(ours_done_->context));
    cache.MarkWritten();
    KVANT_TRY(cache.SealAll());
  }
  return Status::Ok();
}

// ---- Steps

Status DeviceGraph::BeginSteps() {
  for (const CacheStep& step : outline_.steps) {
    KVANT_TRY(CheckUsable(step.first_write.cache, *step.first_write.tensor));
    KVANT_TRY(BeginStep(step));
    if (outline_.uid != graph_->uid || graph_->uid == 0) KVANT_TRY(CheckCells(step));
  }
  outline_.uid = graph_->uid;
  return Status::Ok();
}

// A host may run a batch in several graphs, each with some of the layers: they are one step.
Status DeviceGraph::BeginStep(const CacheStep& step) {
  const WriteOp& first = step.first_write;
  DeviceCache& cache = first.cache->device();
  const Result<std::vector<CellPlace>> cells = CellsOf(first);
  if (!cells.ok()) return cells.status();
  if (!cache.written(first.tensor->index) && std::ranges::equal(*cells, cache.rows())) return Status::Ok();
  StreamRange range;
  bool few = false;
  if (step.first_attention) {
    range = RangeOf(*step.first_attention);
    few = step.first_attention->num_queries <= kMaxFusedQueries;
    // libllama's view ends behind its last used cell (rounded up to 256), so rows behind that are free. It never says so
    // otherwise: this is how removed tokens give their memory back.
    for (int s = range.first; s < range.first + range.count; ++s) cache.Truncate(s, range.cells);
    // While nothing has changed yet: there may be no memory.
    if (step.first_attention->num_queries > kMostRowsAskedFor) KVANT_TRY(ReserveScratch(*step.first_attention));
  }
  const Status status = cache.Begin(*cells, few ? &range : nullptr);
  if (!status.ok() && status.code() != StatusCode::kOutOfMemory) first.cache->set_damage(status);
  return status;
}

// K and V have tensors of their own for the same numbers. A graph that comes again fills them in the same way.
Status DeviceGraph::CheckCells(const CacheStep& step) {
  std::vector<const void*> checked = {step.first_write.cells->data};
  for (const WriteOp& op : step.writes) {
    if (std::ranges::find(checked, op.cells->data) != checked.end()) continue;
    checked.push_back(op.cells->data);
    const Result<std::vector<CellPlace>> cells = CellsOf(op);
    if (!cells.ok()) return cells.status();
    if (!std::ranges::equal(*cells, op.cache->device().rows())) {
      return Status::NotSupported("the host writes keys and values of one batch to different cells");
    }
  }
  return Status::Ok();
}

Result<std::vector<CellPlace>> DeviceGraph::CellsOf(const WriteOp& op) {
  const auto count = static_cast<size_t>(op.cells->ne[0]);
  if (op.cells->type != GGML_TYPE_I64 || op.cells->op != GGML_OP_NONE || !ggml_is_contiguous(op.cells)) {
    return Status::NotSupported("the host computes the numbers of cells on the device");
  }
  std::vector<int64_t> numbers(count);
  KVANT_TRY(op.cache->device().Fetch(op.cells->data, count * sizeof(int64_t), numbers.data()));
  std::vector<CellPlace> cells;
  for (const int64_t cell : numbers) {
    const Result<KvRange> place = op.tensor->PlaceOf(cell);
    if (!place.ok()) return place.status();
    cells.push_back({place->stream, place->first_cell});
  }
  return cells;
}

// ---- Nodes

Status DeviceGraph::AddNode(ggml_tensor* node) {
  switch (Classify(*node)) {
    case CacheOp::kView:
      return Status::Ok();
    case CacheOp::kWrite:
      return AddWrite(*node);
    case CacheOp::kAttention:
      return AddAttention(*node);
    case CacheOp::kShift:
      return AddShift(*node);
    case CacheOp::kOther:
      return ClaimOp(*node).status();
    case CacheOp::kNone:
      break;
  }
  if (!ComputesNothing(*node)) KVANT_TRY(RunWrites());  // its result may take the place of their rows
  piece_.push_back(node);
  return Status::Ok();
}

Status DeviceGraph::AddWrite(const ggml_tensor& node) {
  const Result<WriteOp> op = ParseWrite(node);
  if (!op.ok()) return op.status();
  const bool is_key = op->tensor->name.side == Side::kKey;
  const WriteOp* other = is_key ? pending_.values : pending_.keys;
  const bool beside = other == nullptr || (other->cache == op->cache && other->tensor->index == op->tensor->index);
  if (!beside || (is_key ? pending_.keys : pending_.values) != nullptr) KVANT_TRY(RunWrites());
  KVANT_TRY(Submit());
  (is_key ? pending_.keys : pending_.values) = &write_ops_.emplace_back(*op);
  return Status::Ok();
}

Status DeviceGraph::RunWrites() {
  const WriteOp* op = pending_.keys != nullptr ? pending_.keys : pending_.values;
  if (op == nullptr) return Status::Ok();
  DeviceCache& cache = op->cache->device();
  KVANT_TRY(Enter(&cache));
  KVANT_TRY(cache.Write(op->tensor->index, RowsOf(pending_.keys), RowsOf(pending_.values)));
  pending_ = {};
  return Leave(&cache);
}

Status DeviceGraph::AddAttention(const ggml_tensor& node) {
  const Result<AttentionOp> op = ParseAttention(node);
  if (!op.ok()) return op.status();
  KVANT_TRY(CheckUsable(op->cache, *op->keys));
  KVANT_TRY(Submit());
  DeviceCache& cache = op->cache->device();
  KVANT_TRY(Enter(&cache));
  // Before the rows: the tables do not depend on them, and the attention then follows the rows directly.
  const Result<bool> fused = AttendsFused(*op);
  if (!fused.ok()) return fused.status();
  if (const WriteOp* write = pending_.keys != nullptr ? pending_.keys : pending_.values; write != nullptr) {
    KVANT_TRY(write->cache->device().Write(write->tensor->index, RowsOf(pending_.keys), RowsOf(pending_.values)));
    pending_ = {};
  }
  KVANT_TRY(*fused ? Attend(*op) : DecodeForInner(*op));
  KVANT_TRY(Leave(&cache));
  return recording_ ? Status::Ok() : cache.Seal(op->keys->index);
}

// Makes the page tables when the answer is yes; once for all layers that see the same.
Result<bool> DeviceGraph::AttendsFused(const AttentionOp& op) {
  if (op.num_queries > kMostRowsAskedFor) return false;
  const ggml_tensor* mask = op.node->src[3];
  const void* data = mask != nullptr ? mask->data : op.keys->base;
  Seen& seen = seen_[op.cache];
  if (seen.mask == data) return seen.fused;
  KVANT_TRY(See(op));
  seen = {data, true};
  if (op.num_queries <= kMaxFusedQueries) return true;
  // Rows of many sequences, each of which sees its own pages, or of one, which all see the same?
  const Result<int64_t> pages = op.cache->device().SeenPages();
  if (!pages.ok()) return pages.status();
  seen.fused = *pages <= kMaxFusedQueries * PagesOf(op.num_cells) * op.num_streams;
  return seen.fused;
}

Status DeviceGraph::See(const AttentionOp& op) {
  const ggml_tensor* mask = op.node->src[3];
  DeviceMask m = {.rows = static_cast<int>(op.num_queries)};
  if (mask != nullptr) {
    m.maybe_mask = mask->data;
    m.row_stride = mask->nb[1];
    m.stream_stride = mask->ne[3] > 1 ? mask->nb[3] : 0;
  }
  return op.cache->device().See(RangeOf(op), m);
}

Status DeviceGraph::Attend(const AttentionOp& op) {
  const auto [q, sinks] = std::tuple{op.node->src[0], op.node->src[4]};
  return op.cache->device().Attend(
      op.keys->index, {.queries = static_cast<const float*>(q->data),
                       .out = static_cast<float*>(op.node->data),
                       .q_heads = op.q_heads,
                       .scale = op.scale,
                       .soft_cap = op.softcap,
                       .maybe_sinks = sinks != nullptr ? static_cast<const float*>(sinks->data) : nullptr});
}

Status DeviceGraph::ReserveScratch(const AttentionOp& op) {
  graphs_without_scratch_ = 0;
  const auto cells = static_cast<size_t>(op.num_cells) * static_cast<size_t>(op.num_streams);
  KVANT_TRY(keys_.Reserve(device_, cells * op.keys->row_bytes()));
  return values_.Reserve(device_, cells * op.values->row_bytes());
}

Status DeviceGraph::DecodeForInner(const AttentionOp& op) {
  KVANT_TRY(ReserveScratch(op));
  KVANT_TRY(op.cache->device().Decode(op.keys->index, RangeOf(op), keys_.data(), values_.data()));
  ggml_tensor* attention = Copy(*op.node);
  attention->src[1] = Copy(*op.node->src[1], false);
  attention->src[2] = Copy(*op.node->src[2], false);
  keys_.HoldRowsOf(attention->src[1], op.keys->row_bytes());
  values_.HoldRowsOf(attention->src[2], op.values->row_bytes());
  piece_.push_back(attention);
  return Status::Ok();
}

// ---- Context shift

Status DeviceGraph::AddShift(const ggml_tensor& node) {
  const Result<ShiftOp> op = ParseShift(node);
  if (!op.ok()) return op.status();
  KVANT_TRY(CheckUsable(op->cache, *op->keys));
  KVANT_TRY(RunWrites());
  KVANT_TRY(Submit());
  for (int stream = 0; stream < op->keys->streams; ++stream) {
    if (op->cache->device().num_rows(stream) > 0) KVANT_TRY(ShiftStream(*op, stream));
  }
  return Status::Ok();
}

Result<std::vector<int32_t>*> DeviceGraph::ShiftsOf(const ShiftOp& op) {
  const ggml_tensor* source = op.node->src[1];
  if (source->type != GGML_TYPE_I32 || source->op != GGML_OP_NONE) {
    return Status::NotSupported("the host computes the shift of positions on the device");
  }
  std::vector<int32_t>& shifts = shifts_[source->data];
  if (shifts.empty()) {
    shifts.resize(static_cast<size_t>(source->ne[0]));
    KVANT_TRY(op.cache->device().Fetch(source->data, shifts.size() * sizeof(int32_t), shifts.data()));
    for (int stream = 0; stream < op.keys->streams; ++stream) KVANT_TRY(op.cache->device().BeginShift(stream));
  }
  return &shifts;
}

Status DeviceGraph::ShiftStream(const ShiftOp& op, int stream) {
  const Result<std::vector<int32_t>*> shifts = ShiftsOf(op);
  if (!shifts.ok()) return shifts.status();
  DeviceCache& cache = op.cache->device();
  const int64_t pages = PagesOf(cache.num_rows(stream));
  const int64_t rows = std::min(pages * kTokensPerPage, op.keys->cells);
  std::vector<uint8_t> changed(static_cast<size_t>(pages), 0);
  for (int64_t row = 0; row < rows; ++row) {
    if ((**shifts)[static_cast<size_t>(stream * op.keys->cells + row)] != 0) {
      changed[static_cast<size_t>(row / kTokensPerPage)] = 1;
    }
  }
  if (std::ranges::count(changed, 1) == 0) return Status::Ok();
  graphs_without_scratch_ = 0;
  KVANT_TRY(keys_.Reserve(device_, static_cast<size_t>(pages * kTokensPerPage) * op.keys->row_bytes()));
  KVANT_TRY(Enter(&cache));
  KVANT_TRY(cache.Decode(op.keys->index, {stream, 1, pages * kTokensPerPage}, keys_.data(), nullptr));
  KVANT_TRY(Leave(&cache));

  ggml_tensor* rotate = Copy(*op.node);
  rotate->ne[2] = rows;
  keys_.Hold(rotate, op.byte_in_row);
  rotate->src[0] = Copy(*rotate, false);
  ggml_tensor* shift = rotate->src[1] = Copy(*op.node->src[1], false);
  shift->ne[0] = rows;
  shift->data = static_cast<std::byte*>(shift->data) + static_cast<size_t>(stream * op.keys->cells) * shift->nb[0];
  piece_.push_back(rotate);
  KVANT_TRY(Submit());

  KVANT_TRY(Enter(&cache));
  KVANT_TRY(cache.ReplaceKeys(op.keys->index, stream, changed, keys_.data()));
  return Leave(&cache);
}

// ---- Pieces and visits

// The inner backend records graphs that it gets again, by their first node; within our recording it must not. So it gets one that it
// has never seen.
void DeviceGraph::MakeUnknown(ggml_cgraph* piece) {
  ggml_tensor* first = &tensors_.emplace_back();
  first->op_params[0] = ++pieces_recorded_;
  piece_.insert(piece_.begin(), first);
  piece->nodes = piece_.data();
  piece->n_nodes = piece->size = static_cast<int>(piece_.size());
  piece->uid = 0;
}

Status DeviceGraph::Submit() {
  const bool nothing = std::ranges::all_of(piece_, [](const ggml_tensor* node) { return ComputesNothing(*node); });
  if (!nothing) {
    ggml_cgraph piece = *graph_;
    piece.nodes = piece_.data();
    piece.n_nodes = piece.size = static_cast<int>(piece_.size());
    if (piece_is_ours_) piece.uid = 0;  // by which the inner backend knows a graph again
    if (recording_) MakeUnknown(&piece);
    const ggml_status status = ggml_backend_graph_compute_async(inner_, &piece);
    if (status != GGML_STATUS_SUCCESS)
      return Status::Internal("the inner device failed to compute a part of the graph");
    ++inner_work_;
  }
  piece_.clear();
  piece_is_ours_ = false;
  return Status::Ok();
}

Status DeviceGraph::Enter(DeviceCache* cache) {
  if (std::exchange(waited_[cache], inner_work_) == inner_work_) return Status::Ok();
  ggml_backend_event_record(inner_done_, inner_);
  return cache->WaitFor(inner_done_->context);
}

Status DeviceGraph::Leave(DeviceCache* cache) {
  KVANT_TRY(cache->Record(ours_done_->context));
  ggml_backend_event_wait(inner_, ours_done_);
  return Status::Ok();
}

ggml_tensor* DeviceGraph::Copy(const ggml_tensor& node, bool compute) {
  ggml_tensor* copy = &tensors_.emplace_back(node);
  if (!compute) copy->op = GGML_OP_NONE;
  piece_is_ours_ = true;
  return copy;
}

std::unique_ptr<GraphRunner> NewDeviceGraph(ggml_backend_dev_t inner) { return std::make_unique<DeviceGraph>(inner); }

}  // namespace kvant
