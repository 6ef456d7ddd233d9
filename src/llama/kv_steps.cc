#include "llama/kv_steps.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace kvant {
namespace {

const std::byte* Bytes(const ggml_tensor& tensor, size_t offset) {
  return static_cast<const std::byte*>(tensor.data) + offset;
}

int64_t CellAt(const ggml_tensor& cells, size_t row) {
  const std::byte* at = Bytes(cells, row * cells.nb[0]);
  if (cells.type == GGML_TYPE_I32) return *reinterpret_cast<const int32_t*>(at);
  return *reinterpret_cast<const int64_t*>(at);
}

// Slope of each head, as ALiBi defines it for a head count that need not be a power of two.
std::vector<float> AlibiSlopes(float max_bias, int heads) {
  std::vector<float> slopes;
  if (max_bias <= 0) return slopes;
  const int power = 1 << static_cast<int>(std::floor(std::log2(heads)));
  const float first = std::exp2(-max_bias / static_cast<float>(power));
  const float second = std::exp2(-max_bias / 2 / static_cast<float>(power));
  for (int h = 0; h < heads; ++h) {
    slopes.push_back(h < power ? std::pow(first, static_cast<float>(h + 1))
                               : std::pow(second, static_cast<float>(2 * (h - power) + 1)));
  }
  return slopes;
}

}  // namespace

// ---- Writing ----

Status WriteCells(const Team& team, const WriteOp& op) {
  KvStore& store = op.cache->store(*op.tensor);
  const auto count = static_cast<size_t>(op.rows->ne[1]);
  // Each member makes its own list of row numbers: cheaper than a barrier. A batch of rows stays within a stream.
  std::vector<int64_t> rows;
  for (size_t first = 0; first < count; first += rows.size()) {
    const Result<KvRange> start = op.tensor->PlaceOf(CellAt(*op.cells, first));
    if (!start.ok()) return start.status();
    rows.assign(1, start->first_cell);
    for (size_t i = first + 1; i < count; ++i) {
      const Result<KvRange> next = op.tensor->PlaceOf(CellAt(*op.cells, i));
      if (!next.ok()) return next.status();
      if (next->stream != start->stream) break;
      rows.push_back(next->first_cell);
    }
    const RowSource source{Bytes(*op.rows, first * op.rows->nb[1]), op.rows->nb[1], op.rows->type == GGML_TYPE_F16};
    const size_t positions = op.positions.empty() ? 0 : rows.size();
    KVANT_TRY(store.Write(team, start->stream, rows, source, op.positions.subspan(positions ? first : 0, positions)));
  }
  return Status::Ok();
}

Status WriteShifted(const Team& team, const ShiftOp& op, int stream, std::span<const int32_t> shift,
                    const RowTarget& rows) {
  KvStore& store = op.cache->store(*op.keys);
  std::vector<int64_t> cells;
  for (size_t first = 0; first < shift.size(); first += std::max<size_t>(cells.size(), 1)) {
    cells.clear();
    for (size_t row = first; row < shift.size() && shift[row] != 0; ++row) cells.push_back(static_cast<int64_t>(row));
    if (cells.empty()) continue;
    const RowSource source{rows.data + first * rows.row_stride, rows.row_stride * sizeof(F16), true};
    KVANT_TRY(store.Write(team, stream, cells, source));
  }
  return store.Seal(team, stream);
}

// ---- Attention ----

FusedAttention::FusedAttention(const AttentionOp& op, AlignedBuffer<std::byte>* workspace)
    : op_(op), workspace_(workspace), slopes_(AlibiSlopes(op.max_bias, op.q_heads)) {}

Status FusedAttention::Run(const Team& team) {
  for (int stream = 0; stream < op_.num_streams; ++stream) {
    if (team.leader()) status_ = Prepare(stream, team.size());
    team.Sync();
    KVANT_TRY(status_);
    Attend(team, args_, workspace_->data());
    if (stream + 1 < op_.num_streams) team.Sync();  // before the leader prepares the next
  }
  return Status::Ok();
}

Status FusedAttention::Prepare(int stream, int team_size) {
  const ggml_tensor& node = *op_.node;
  const auto [q, mask, sinks] = std::tuple{node.src[0], node.src[3], node.src[4]};
  const auto s = static_cast<size_t>(stream);
  args_ = {.keys = op_.cache->store(*op_.keys).View(op_.first_stream + stream),
           .values = op_.cache->store(*op_.values).View(op_.first_stream + stream),
           .kv_heads = op_.keys->heads,
           .q_heads = op_.q_heads,
           .k_dim = op_.keys->dim,
           .v_dim = op_.values->dim,
           .num_queries = static_cast<int>(op_.num_queries),
           .queries = reinterpret_cast<const float*>(Bytes(*q, s * q->nb[3])),
           .query_row_stride = q->nb[1] / sizeof(float),
           .query_head_stride = q->nb[2] / sizeof(float),
           .out = reinterpret_cast<float*>(static_cast<std::byte*>(node.data) + s * node.nb[3]),
           .out_row_stride = node.nb[2] / sizeof(float),
           .out_head_stride = node.nb[1] / sizeof(float),
           .scale = op_.scale,
           .softcap = op_.softcap,
           .mask_columns = op_.num_cells,
           .maybe_slopes = slopes_.empty() ? nullptr : slopes_.data(),
           .maybe_sinks = sinks ? static_cast<const float*>(sinks->data) : nullptr};
  if (mask) {
    const size_t mask_stream = s % static_cast<size_t>(mask->ne[3]);
    args_.mask = reinterpret_cast<const F16*>(Bytes(*mask, mask_stream * mask->nb[3]));
    args_.mask_row_stride = mask->nb[1] / sizeof(F16);
  }
  const size_t bytes = AttendWorkspaceBytes(args_, team_size);
  if (workspace_->size() < bytes) *workspace_ = AlignedBuffer<std::byte>(bytes);
  if (workspace_->data() != nullptr || bytes == 0) return Status::Ok();
  *workspace_ = {};
  return Status::OutOfMemory(StrFormat("no memory for attention (%zu bytes)", bytes));
}

Status DecodeLayer(const Team& team, const AttentionOp& op, F16* keys, F16* values) {
  for (int stream = 0; stream < op.num_streams; ++stream) {
    for (const auto& [tensor, scratch] : {std::pair{op.keys, keys}, std::pair{op.values, values}}) {
      const auto row_values = static_cast<size_t>(tensor->row_values);
      const RowTarget target{scratch + static_cast<size_t>(stream * op.num_cells) * row_values, row_values};
      KVANT_TRY(op.cache->store(*tensor).Read(team, op.first_stream + stream, 0, op.num_cells, target));
    }
  }
  return Status::Ok();
}

Status SealStreams(const Team& team, const AttentionOp& op) {
  for (int stream = op.first_stream; stream < op.first_stream + op.num_streams; ++stream) {
    KVANT_TRY(op.cache->store(*op.keys).Seal(team, stream));
    KVANT_TRY(op.cache->store(*op.values).Seal(team, stream));
  }
  return Status::Ok();
}

}  // namespace kvant
