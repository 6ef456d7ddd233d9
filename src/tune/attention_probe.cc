#include "tune/attention_probe.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <utility>

#include "cache/kv_store.h"
#include "kvant/kv_cache.h"
#include "tune/candidates.h"

namespace kvant {
namespace {

// Of a page of queries every second is asked: errors of neighbours are alike, and time counts.
constexpr int64_t kQueryStep = 2;
constexpr int64_t kMaxQueries = kTokensPerPage / kQueryStep;

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

// One head of rows [count, width].
Rows HeadOf(const std::vector<float>& rows, int64_t count, int head, int dim, int width) {
  return {rows.data() + int64_t{head} * dim, count, dim, Eigen::OuterStride<>(width)};
}

void Append(std::vector<float>* to, int64_t count, int width, const float* rows, size_t stride) {
  for (int64_t i = 0; i < count; ++i)
    to->insert(to->end(), rows + i * static_cast<int64_t>(stride), rows + i * static_cast<int64_t>(stride) + width);
}

// The rows that a cache of one layer gives back.
Result<std::vector<float>> Recoded(KvCache& cache, bool is_key, int64_t num_rows, int width) {
  std::vector<F16> decoded(static_cast<size_t>(num_rows * width));
  const KvStore& store = is_key ? cache.keys(0) : cache.values(0);
  KVANT_TRY(store.Read(Team(), 0, 0, num_rows, {.data = decoded.data(), .row_stride = static_cast<size_t>(width)}));
  std::vector<float> rows(decoded.size());
  std::ranges::transform(decoded, rows.begin(), [](F16 x) { return ToFloat(x); });
  return rows;
}

}  // namespace

AttentionProbe::AttentionProbe(std::vector<LayerShape> layers, int64_t num_rows)
    : shapes_(std::move(layers)), num_rows_(num_rows), layers_(shapes_.size()) {}

bool AttentionProbe::Wants(RowKind kind) const {
  return kind == RowKind::kKey || kind == RowKind::kValue || kind == RowKind::kQuery;
}

void AttentionProbe::Clear() { layers_.assign(shapes_.size(), Layer()); }

void AttentionProbe::Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) {
  if (layer < 0 || std::cmp_greater_equal(layer, layers_.size())) return;
  Layer& own = layers_[static_cast<size_t>(layer)];
  if (kind == RowKind::kQuery) {
    for (int64_t i = 0; i < count; ++i, ++own.queries_seen, rows += stride) {
      const int64_t behind = own.queries_seen - num_rows_;
      if (behind >= 0 && behind < kTokensPerPage && behind % kQueryStep == 0) {
        kvant::Append(&own.queries, 1, width, rows, stride);
      }
    }
    return;
  }
  const bool is_key = kind == RowKind::kKey;
  int64_t& seen = is_key ? own.keys_seen : own.values_seen;
  const int64_t kept = std::clamp<int64_t>(num_rows_ - seen, 0, count);
  kvant::Append(is_key ? &own.keys : &own.values, kept, width, rows, stride);
  seen += count;
}

std::vector<float> AttentionProbe::Attend(const Layer& layer, const LayerShape& shape, const std::vector<float>& keys,
                                          const std::vector<float>& values) const {
  const auto asked = std::min<int64_t>(kMaxQueries, (layer.queries_seen - num_rows_ + kQueryStep - 1) / kQueryStep);
  const int q_width = static_cast<int>(std::ssize(layer.queries) / asked);
  const int q_heads = q_width / shape.k_dim;
  std::vector<float> out;
  for (int head = 0; head < q_heads; ++head) {
    const int kv_head = head / (q_heads / shape.kv_heads);
    const Rows q = HeadOf(layer.queries, asked, head, shape.k_dim, q_width);
    const Rows k = HeadOf(keys, num_rows_, kv_head, shape.k_dim, shape.kv_heads * shape.k_dim);
    const Rows v = HeadOf(values, num_rows_, kv_head, shape.v_dim, shape.kv_heads * shape.v_dim);
    Matrix p = q * k.transpose();
    p = (p.colwise() - p.rowwise().maxCoeff()).array().exp().matrix().eval();
    const Matrix result = p.rowwise().sum().cwiseInverse().asDiagonal() * (p * v);
    out.insert(out.end(), result.data(), result.data() + result.size());
  }
  return out;
}

Result<double> AttentionProbe::Error(int layer, bool is_key, const CodecChoice& choice, int sink_tokens,
                                     std::shared_ptr<const Calibration> maybe_calibration) const {
  const Layer& own = layers_[static_cast<size_t>(layer)];
  const LayerShape& shape = shapes_[static_cast<size_t>(layer)];
  if (own.keys_seen < num_rows_ || own.values_seen < num_rows_ || own.queries_seen <= num_rows_) {
    return Status::NotFound(StrFormat("the model has not shown all rows of layer %d", layer));
  }
  const Scheme scheme = {.key = is_key ? choice : ExactChoice(),
                         .value = is_key ? ExactChoice() : choice,
                         .sink_tokens = sink_tokens,
                         .recent_tokens = 0};
  auto cache = KvCache::Create({.scheme = scheme,
                                .layers = {shape},
                                .maybe_calibration = std::move(maybe_calibration),
                                .layer_numbers = {layer}});
  if (!cache.ok()) return cache.status();
  KVANT_TRY((*cache)->Append(0, 0, num_rows_, own.keys.data(), own.values.data()));
  KVANT_TRY((*cache)->Seal(0));
  const Result<std::vector<float>> rows =
      Recoded(**cache, is_key, num_rows_, shape.kv_heads * (is_key ? shape.k_dim : shape.v_dim));
  if (!rows.ok()) return rows.status();
  const std::vector<float> exact = Attend(own, shape, own.keys, own.values);
  const std::vector<float> lossy = is_key ? Attend(own, shape, *rows, own.values) : Attend(own, shape, own.keys, *rows);
  double error = 0, power = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double difference = static_cast<double>(lossy[i]) - static_cast<double>(exact[i]);
    error += difference * difference;
    power += static_cast<double>(exact[i]) * static_cast<double>(exact[i]);
  }
  return power > 0 ? std::sqrt(error / power) : 0;
}

}  // namespace kvant
