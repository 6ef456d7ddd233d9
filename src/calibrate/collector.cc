#include "calibrate/collector.h"

#include <algorithm>

#include "base/check.h"
#include "codec/parts/covariance.h"

namespace kvant {
namespace {

// The attention of every so many-th query is looked at.
constexpr int64_t kQueryStep = 4;

constexpr const char* NameOf(RowKind kind) {
  switch (kind) {
    case RowKind::kKey:
      return "keys";
    case RowKind::kKeyBeforeRope:
      return "keys before RoPE";
    case RowKind::kValue:
      return "values";
    case RowKind::kQuery:
      return "queries";
    case RowKind::kOutput:
      return "output projection";
  }
  return "";
}

}  // namespace

// Page `page` of all: exactly max_pages of them are, evenly spread.
bool Collector::IsKept(int64_t page) const {
  if (total_pages_ <= options_.max_pages) return true;
  return (page + 1) * options_.max_pages / total_pages_ > page * options_.max_pages / total_pages_;
}

void Collector::BeginBatch(int64_t first_pos, int64_t count) {
  KVANT_DCHECK(first_pos % kTokensPerPage == 0 && count % kTokensPerPage == 0);
  if (first_pos == 0) EndWindow();
  first_pos_ = first_pos;
  batch_.assign(static_cast<size_t>(count / kTokensPerPage), false);
  for (size_t i = 0; i < batch_.size(); ++i, ++pages_seen_) {
    batch_[i] = first_pos + static_cast<int64_t>(i) > 0 && IsKept(pages_seen_);
    pages_kept_ += batch_[i];
    if (!batch_[i]) continue;
    for (int t = 0; t < kTokensPerPage; ++t) {
      kept_positions_.push_back(first_pos + static_cast<int64_t>(i) * kTokensPerPage + t);
    }
  }
  position_.clear();
}

bool Collector::Wants(RowKind kind) const {
  if (kind == RowKind::kKey) return options_.keys;
  return kind != RowKind::kKeyBeforeRope || options_.keys_before_rope;
}

void Collector::Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) {
  if (layer < 0 || layer >= std::ssize(options_.layers)) return;
  if (kind == RowKind::kOutput) return AddMoments(kind, layer, count, width, rows, stride);
  if (batch_.empty()) return;
  if (kind == RowKind::kQuery) {
    AddAttention(layer, count, width, rows, stride);
    return AddMoments(kind, layer, count, width, rows, stride);
  }
  if (kind == RowKind::kKey) {
    const LayerShape& shape = options_.layers[static_cast<size_t>(layer)];
    attention_.try_emplace(layer, shape.kv_heads, shape.k_dim).first->second.AddKeys(count, rows, stride);
  }
  if (Wants(kind)) Keep(kind, layer, count, width, rows, stride);
}

void Collector::Keep(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) {
  Sample& sample = samples_[{kind, layer}];
  const int64_t most = std::min(options_.max_pages, total_pages_) * kTokensPerPage;
  sample.values.reserve(static_cast<size_t>(most) * static_cast<size_t>(width));
  int64_t& position = position_[{kind, layer}];
  for (int64_t i = 0; i < count; ++i, ++position, rows += stride) {
    const auto page = static_cast<size_t>(position / kTokensPerPage);
    if (page >= batch_.size() || !batch_[page]) continue;
    for (int c = 0; c < width; ++c) sample.values.push_back(ToF16(rows[c]));
    ++sample.rows;
  }
}

// Queries in portions of as many as the attention takes.
void Collector::AddAttention(int layer, int64_t count, int width, const float* rows, size_t stride) {
  const LayerShape& shape = options_.layers[static_cast<size_t>(layer)];
  const auto dim = static_cast<size_t>(shape.k_dim);
  const int heads = width / shape.k_dim;
  int64_t& position = position_[{RowKind::kQuery, layer}];
  const int64_t first = first_pos_ + position;
  position += count;
  WindowAttention& attention = attention_.at(layer);
  AlignedBuffer<float> queries(WindowAttention::kMaxQueries * dim);
  int64_t positions[WindowAttention::kMaxQueries];
  for (int64_t next = kQueryStep - 1; next < count;) {
    const int64_t start = next;
    int n = 0;
    for (; n < WindowAttention::kMaxQueries && next < count; ++n, next += kQueryStep) positions[n] = first + next;
    for (int head = 0; head < heads; ++head) {
      for (int i = 0; i < n; ++i) {
        std::copy_n(rows + static_cast<size_t>(start + i * kQueryStep) * stride + static_cast<size_t>(head) * dim, dim,
                    queries.data() + static_cast<size_t>(i) * dim);
      }
      attention.AddQueries(head * shape.kv_heads / heads, n, queries.data(), positions);
    }
  }
}

void Collector::EndWindow() {
  for (auto& [layer, attention] : attention_) {
    std::vector<double>& masses = masses_[layer];
    for (const int64_t pos : kept_positions_) {
      for (int head = 0; head < options_.layers[static_cast<size_t>(layer)].kv_heads; ++head) {
        masses.push_back(attention.mass(head, pos));
      }
    }
    attention.Clear();
  }
  kept_positions_.clear();
}

std::vector<float> Collector::Weights(int layer, int head) const {
  const int kv_heads = options_.layers[static_cast<size_t>(layer)].kv_heads;
  std::vector<double> masses(static_cast<size_t>(num_rows()), 0.0);
  double mean = 0.0;
  const auto found = masses_.find(layer);
  for (size_t i = 0; i < masses.size() && found != masses_.end(); ++i) {
    masses[i] = found->second[i * static_cast<size_t>(kv_heads) + static_cast<size_t>(head)];
    mean += masses[i] / static_cast<double>(masses.size());
  }
  std::vector<float> weights(masses.size(), 1.0f);
  for (size_t i = 0; i < masses.size() && mean > 0.0; ++i) weights[i] = static_cast<float>(masses[i] / mean);
  return weights;
}

// The query heads of a group count for the KV head that they share.
void Collector::AddMoments(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) {
  const LayerShape& shape = options_.layers[static_cast<size_t>(layer)];
  const int head_dim = kind == RowKind::kQuery ? shape.k_dim : shape.v_dim;
  const auto dim = static_cast<size_t>(head_dim);
  const int heads = width / head_dim;
  Moments& moments = moments_[{kind, layer}];
  moments.dim = head_dim;
  moments.sums.resize(static_cast<size_t>(shape.kv_heads) * dim * dim);
  std::vector<float> head_rows(static_cast<size_t>(count) * dim);
  std::vector<float> sums(dim * dim);
  for (int head = 0; head < heads; ++head) {
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      std::copy_n(rows + i * stride + static_cast<size_t>(head) * dim, dim, head_rows.data() + i * dim);
    }
    std::ranges::fill(sums, 0.0f);
    GetCovarianceKernels().add(head_rows.data(), static_cast<size_t>(count), head_dim, sums.data());
    double* out = moments.sums.data() + static_cast<size_t>(head * shape.kv_heads / heads) * dim * dim;
    for (size_t i = 0; i < dim; ++i) {
      for (size_t j = i; j < dim; ++j) out[i * dim + j] += static_cast<double>(sums[i * dim + j]);
    }
  }
}

Result<std::vector<float>> Collector::Rows(RowKind kind, int layer, int head) const {
  const auto found = samples_.find({kind, layer});
  if (found == samples_.end() || found->second.rows != num_rows() || num_rows() == 0) {
    return Status::NotFound(StrFormat("the model showed no %s of layer %d, or not all", NameOf(kind), layer));
  }
  const LayerShape& shape = options_.layers[static_cast<size_t>(layer)];
  const auto dim = static_cast<size_t>(kind == RowKind::kValue ? shape.v_dim : shape.k_dim);
  std::vector<float> rows(static_cast<size_t>(num_rows()) * dim);
  const F16* from = found->second.values.data() + static_cast<size_t>(head) * dim;
  for (size_t i = 0; i < rows.size(); i += dim, from += static_cast<size_t>(shape.kv_heads) * dim) {
    std::transform(from, from + dim, rows.begin() + static_cast<ptrdiff_t>(i), [](F16 v) { return ToFloat(v); });
  }
  return rows;
}

Result<std::vector<double>> Collector::Metric(Side side, int layer, int head) const {
  const RowKind kind = side == Side::kKey ? RowKind::kQuery : RowKind::kOutput;
  const auto found = moments_.find({kind, layer});
  if (found == moments_.end()) {
    return Status::NotFound(StrFormat("the model showed no %s of layer %d", NameOf(kind), layer));
  }
  const auto dim = static_cast<size_t>(found->second.dim);
  const double* sums = found->second.sums.data() + static_cast<size_t>(head) * dim * dim;
  std::vector<double> metric(dim * dim);
  double trace = 0.0;
  for (size_t i = 0; i < dim; ++i) trace += sums[i * dim + i];
  for (size_t i = 0; i < dim; ++i) {
    for (size_t j = i; j < dim; ++j) {
      metric[i * dim + j] = metric[j * dim + i] =
          trace > 0 ? sums[i * dim + j] * static_cast<double>(dim) / trace : static_cast<double>(i == j);
    }
  }
  return metric;
}

}  // namespace kvant
