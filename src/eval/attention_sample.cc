#include <algorithm>
#include <cmath>

#include "attention/reference.h"
#include "base/check.h"
#include "eval/attention_error.h"
#include "kvant/kv_cache.h"
#include "page/block_layout.h"

namespace kvant {
namespace {

// Rows of a page that are there when its query comes.
constexpr int64_t kHalfPage = kTokensPerPage / 2;

double Norm2(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * static_cast<double>(v);
  return sum;
}

}  // namespace

AttentionSample::AttentionSample(std::vector<LayerShape> layers, int64_t tokens)
    : shapes_(std::move(layers)), tokens_(tokens), layers_(shapes_.size()) {
  KVANT_CHECK(tokens > 0 && tokens % (2 * kTokensPerPage) == 0);
}

int64_t AttentionSample::num_queries() const { return tokens_ / 2 / kTokensPerPage; }

void AttentionSample::Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) {
  if (layer < 0 || layer >= std::ssize(layers_)) return;
  Layer& to = layers_[static_cast<size_t>(layer)];
  const size_t slot = kind == RowKind::kKey ? 0 : kind == RowKind::kValue ? 1 : 2;
  for (int64_t i = 0; i < count; ++i, rows += stride) {
    const int64_t pos = to.seen[slot]++;
    if (pos >= tokens_) return;
    if (slot < 2) {
      std::transform(rows, rows + width, std::back_inserter(to.rows[slot]), [](float v) { return ToF16(v); });
    } else if (pos >= tokens_ / 2 && pos % kTokensPerPage == kHalfPage - 1) {
      to.queries.insert(to.queries.end(), rows, rows + width);
      to.q_heads = width / shapes_[static_cast<size_t>(layer)].k_dim;
    }
  }
}

// Outputs [queries, q_heads * v_dim] of a layer, half a page of rows at a time.
Status AttentionSample::Attention(KvCache& cache, size_t layer, std::vector<float>* out) const {
  const Layer& from = layers_[layer];
  const LayerShape& shape = shapes_[layer];
  const size_t query_width = static_cast<size_t>(from.q_heads) * static_cast<size_t>(shape.k_dim);
  const size_t out_width = static_cast<size_t>(from.q_heads) * static_cast<size_t>(shape.v_dim);
  out->assign(static_cast<size_t>(num_queries()) * out_width, 0.0f);
  std::vector<float> rows[2];
  for (int64_t pos = 0; pos < tokens_; pos += kHalfPage) {
    for (const size_t side : {0, 1}) {
      const size_t width = from.rows[side].size() / static_cast<size_t>(tokens_);
      const F16* first = from.rows[side].data() + static_cast<size_t>(pos) * width;
      rows[side].resize(static_cast<size_t>(kHalfPage) * width);
      std::transform(first, first + rows[side].size(), rows[side].begin(), [](F16 v) { return ToFloat(v); });
    }
    const int number = static_cast<int>(layer);
    KVANT_TRY(cache.Append(0, number, kHalfPage, rows[0].data(), rows[1].data()));
    if (pos % kTokensPerPage != 0) {
      KVANT_TRY(cache.Seal(0));
      continue;
    }
    if (pos < tokens_ / 2) continue;
    const auto query = static_cast<size_t>((pos - tokens_ / 2) / kTokensPerPage);
    KVANT_TRY(ReferenceAttend({.keys = cache.keys(number).View(0),
                               .values = cache.values(number).View(0),
                               .kv_heads = shape.kv_heads,
                               .q_heads = from.q_heads,
                               .k_dim = shape.k_dim,
                               .v_dim = shape.v_dim,
                               .queries = from.queries.data() + query * query_width,
                               .query_row_stride = query_width,
                               .query_head_stride = static_cast<size_t>(shape.k_dim),
                               .out = out->data() + query * out_width,
                               .out_row_stride = out_width,
                               .out_head_stride = static_cast<size_t>(shape.v_dim)}));
  }
  cache.Clear(0);
  return Status::Ok();
}

Result<std::vector<double>> AttentionSample::ErrorsOf(KvCache& exact, KvCache& coded) const {
  std::vector<double> errors;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const Layer& rows = layers_[layer];
    if (*std::min_element(rows.seen, rows.seen + 3) < tokens_) {
      return Status::NotFound(StrFormat("the model showed no rows of layer %zu, or not all", layer));
    }
    std::vector<float> expected, found;
    KVANT_TRY(Attention(exact, layer, &expected));
    KVANT_TRY(Attention(coded, layer, &found));
    const double norm = Norm2(expected);
    std::ranges::transform(found, expected, found.begin(), std::minus<>());
    errors.push_back(norm > 0 ? std::sqrt(Norm2(found) / norm) : 0.0);
  }
  return errors;
}

Result<std::vector<double>> AttentionSample::Errors(const Scheme& scheme,
                                                    std::shared_ptr<const Calibration> maybe_calibration) const {
  CacheConfig config = {.scheme = scheme, .layers = shapes_, .maybe_calibration = std::move(maybe_calibration)};
  const auto coded = KvCache::Create(config);
  if (!coded.ok()) return coded.status();
  config.scheme.recent_tokens = static_cast<int>(tokens_);  // nothing is old enough to be sealed
  const auto exact = KvCache::Create(config);
  if (!exact.ok()) return exact.status();
  return ErrorsOf(**exact, **coded);
}

}  // namespace kvant
