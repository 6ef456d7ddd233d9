#include "calibrate/window_attention.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace kvant {
namespace {

// The first rows of a sequence, exact by default (Scheme::sink_tokens).
constexpr int64_t kSinkRows = 4;

}  // namespace

WindowAttention::WindowAttention(int kv_heads, int dim)
    : kv_heads_(kv_heads),
      codec_(OpenPageCodec({.side = Side::kKey, .dim = dim})),
      prepared_(codec_.state->prepared_head_bytes * kMaxQueries) {}

void WindowAttention::Clear() {
  pages_.clear();
  masses_.clear();
}

void WindowAttention::AddKeys(int64_t count, const float* rows, size_t stride) {
  const auto dim = static_cast<size_t>(codec_.shape().dim);
  std::vector<F16> row(dim);
  for (int64_t i = 0; i < count; ++i, rows += stride) {
    const int64_t pos = std::ssize(masses_) / kv_heads_;
    if (pos % kTokensPerPage == 0) pages_.emplace_back(static_cast<size_t>(kv_heads_) * codec_.block_bytes());
    for (int head = 0; head < kv_heads_; ++head) {
      const float* values = rows + static_cast<size_t>(head) * dim;
      std::transform(values, values + dim, row.begin(), [](float v) { return ToF16(v); });
      codec_.info->store_row(codec_.shape(), pages_.back().data() + static_cast<size_t>(head) * codec_.block_bytes(),
                             static_cast<int>(pos % kTokensPerPage), row.data());
    }
    masses_.resize(masses_.size() + static_cast<size_t>(kv_heads_), 0.0);
  }
}

void WindowAttention::AddQueries(int kv_head, int count, const float* queries, const int64_t* positions) {
  const int64_t num_pages = positions[count - 1] / kTokensPerPage + 1;
  KVANT_CHECK(count <= kMaxQueries && num_pages <= std::ssize(pages_));
  Score(kv_head, count, queries, num_pages);
  for (int i = 0; i < count; ++i) {
    AddRow(kv_head, positions[i], scores_.data() + static_cast<int64_t>(i) * num_pages * kTokensPerPage);
  }
}

void WindowAttention::Score(int kv_head, int count, const float* queries, int64_t num_pages) {
  codec_.verbs.prepare_query(*codec_.state, {}, queries, count, prepared_.data());
  scores_.resize(static_cast<size_t>(kMaxQueries * num_pages * kTokensPerPage));
  alignas(64) float page_scores[kMaxQueries * kTokensPerPage];
  for (int64_t page = 0; page < num_pages; ++page) {
    codec_.verbs.score(*codec_.state, {},
                       pages_[static_cast<size_t>(page)].data() + static_cast<size_t>(kv_head) * codec_.block_bytes(),
                       prepared_.data(), count, page_scores);
    for (int i = 0; i < count; ++i) {
      std::copy_n(page_scores + i * kTokensPerPage, kTokensPerPage,
                  scores_.data() + (i * num_pages + page) * kTokensPerPage);
    }
  }
}

// Softmax of the scores of one query over the rows up to its own, and what of it counts.
void WindowAttention::AddRow(int kv_head, int64_t pos, float* scores) {
  const float max = *std::max_element(scores, scores + pos + 1);
  double sum = 0.0;
  for (int64_t t = 0; t <= pos; ++t) sum += static_cast<double>(scores[t] = std::exp(scores[t] - max));
  for (int64_t t = kSinkRows; t < pos / kTokensPerPage * kTokensPerPage; ++t) {
    const double p = static_cast<double>(scores[t]) / sum;
    masses_[static_cast<size_t>(t * kv_heads_ + kv_head)] += p * p;
  }
}

}  // namespace kvant
