#include "attention/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "attention/page_cursor.h"
#include "attention/plan.h"
#include "base/check.h"
#include "kernels/softmax.h"

namespace kvant {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();
constexpr uint64_t kAllTokens = ~uint64_t{0};

// The partial result of one item; lives in the workspace.
struct PartialState {
  float* reference;  // [heads], of the softmax
  float* sum;        // [heads]
  float* out;        // [heads, v_dim], in the model's basis
};

PartialState StateAt(const AttendPlan& plan, int team_size, size_t item, std::byte* workspace) {
  auto* base = reinterpret_cast<float*>(workspace + plan.thread_bytes * static_cast<size_t>(team_size) +
                                        plan.state_bytes * item);
  return {base, base + plan.heads, base + 2 * plan.heads};
}

// The mask of one query row over one page, as a bias.
class PageBias {
 public:
  enum class Kind { kNone, kSome, kAllHidden };

  /// `visible`: tokens of the page that exist.
  Kind Load(const AttendArgs& args, int query, int64_t first_row, uint64_t visible) {
    if (args.mask == nullptr) return visible == kAllTokens ? Kind::kNone : Fill(visible);
    const int64_t columns = std::clamp<int64_t>(args.mask_columns - first_row, 0, kTokensPerPage);
    const F16* mask = args.mask + static_cast<size_t>(query) * args.mask_row_stride + first_row;
    if (columns < kTokensPerPage) visible &= (uint64_t{1} << columns) - 1;
    uint16_t any = 0;
    for (int64_t t = 0; t < columns; ++t) any |= mask[t].bits;
    if (any == 0) return visible == kAllTokens ? Kind::kNone : Fill(visible);
    Fill(visible);
    bool hidden = true;
    for (int64_t t = 0; t < columns; ++t) {
      values_[t] += ToFloat(mask[t]);
      hidden = hidden && values_[t] == kHidden;
    }
    return hidden ? Kind::kAllHidden : Kind::kSome;
  }
  const float* values() const { return values_; }

 private:
  Kind Fill(uint64_t visible) {
    for (int t = 0; t < kTokensPerPage; ++t) values_[t] = (visible >> t) & 1 ? 0.0f : kHidden;
    return visible == 0 ? Kind::kAllHidden : Kind::kSome;
  }
  alignas(64) float values_[kTokensPerPage];
};

// One item: the query heads of one KV head over a range of rows.
class Item {
 public:
  Item(const AttendArgs& args, const AttendPlan& plan, size_t index, std::byte* scratch, PartialState state)
      : args_(args),
        softmax_(GetSoftmaxKernels()),
        heads_(plan.heads),
        kv_head_(static_cast<int>(index / static_cast<size_t>(plan.parts)) % args.kv_heads),
        query_(static_cast<int>(index / static_cast<size_t>(plan.parts)) / args.kv_heads),
        first_row_(static_cast<int64_t>(index % static_cast<size_t>(plan.parts)) * plan.rows_per_part),
        last_row_(first_row_ + plan.rows_per_part),
        queries_(reinterpret_cast<float*>(scratch + plan.query_ofs)),
        prepared_(scratch + plan.prepared_ofs),
        scores_(reinterpret_cast<float*>(scratch + plan.scores_ofs)),
        weights_(reinterpret_cast<float*>(scratch + plan.weights_ofs)),
        acc_(reinterpret_cast<float*>(scratch + plan.acc_ofs)),
        state_(state) {}

  void Run() {
    Start();
    PageCursor keys(args_.keys, first_row_);
    PageCursor values(args_.values, first_row_);
    while (!keys.done() && keys.page().first_row < last_row_) AttendPage(keys, values);
    FinishRun();
  }

 private:
  void Start() {
    std::fill_n(state_.reference, heads_, kHidden);
    std::fill_n(state_.sum, heads_, 0.0f);
    std::fill_n(state_.out, heads_ * args_.v_dim, 0.0f);
    const float* q = args_.queries + static_cast<size_t>(query_) * args_.query_row_stride +
                     static_cast<size_t>(kv_head_ * heads_) * args_.query_head_stride;
    for (int h = 0; h < heads_; ++h, q += args_.query_head_stride) {
      for (int c = 0; c < args_.k_dim; ++c) queries_[h * args_.k_dim + c] = q[c] * args_.scale;
    }
  }

  // All key pages of one row number, then the value pages of the same rows.
  void AttendPage(PageCursor& keys, PageCursor& values) {
    const int64_t row = keys.page().first_row;
    AddNext(values);
    AddNext(keys);
    uint64_t live = 0;
    for (PageCursor next = keys; !next.done() && next.page().first_row == row; next.Next()) live |= next.page().live;
    const PageBias::Kind kind = bias_.Load(args_, query_, row, live);
    const bool hidden = kind == PageBias::Kind::kAllHidden;
    if (live != kAllTokens) std::fill_n(scores_, heads_ * kTokensPerPage, 0.0f);  // the bias hides them, if finite
    for (; !keys.done() && keys.page().first_row == row; keys.Next()) {
      if (!hidden) ScoreBlock(keys);
    }
    ahead_.Prefetch(16);
    if (!hidden) Weigh(kind);
    while (!values.done() && values.page().first_row < row) values.Next();
    for (; !values.done() && values.page().first_row == row; values.Next()) {
      if (!hidden) AccumulateBlock(values);
    }
    ahead_.Rest();
  }

  BlockContext Reading(const PageCursor& cursor) {
    BlockContext context = cursor.context(kv_head_);
    context.maybe_ahead = &ahead_;
    return context;
  }

  // Puts the block after the cursor's on the list of what to fetch.
  void AddNext(PageCursor cursor) {
    if (cursor.done()) return;
    cursor.Next();
    if (!cursor.done()) ahead_.Add(cursor.block(kv_head_), cursor.run().codec->block_bytes());
  }

  // Scores of one block into scores_, tokens of other blocks of the same rows left alone.
  void ScoreBlock(const PageCursor& keys) {
    const Codec& codec = *keys.run().codec;
    if (static_cast<int64_t>(keys.run_index()) != key_run_) {
      codec.verbs.prepare_query(*codec.state, keys.context(kv_head_), queries_, heads_, prepared_);
      key_run_ = static_cast<int64_t>(keys.run_index());
    }
    const uint64_t live = keys.page().live;
    const bool partial = live != kAllTokens;
    float* scores = partial ? weights_ : scores_;
    codec.verbs.score(*codec.state, Reading(keys), keys.block(kv_head_), prepared_, heads_, scores);
    if (!codec.state->logit_map.is_identity()) MapLogits(codec.state->logit_map, scores);
    if (partial) CopyLive(scores, live, scores_);
  }

  void MapLogits(const LogitMap& map, float* scores) const {
    for (int i = 0; i < heads_ * kTokensPerPage; ++i) scores[i] = map.gain * scores[i] + map.shift;
  }

  void CopyLive(const float* from, uint64_t live, float* to) const {
    for (int h = 0; h < heads_; ++h) {
      for (uint64_t left = live; left != 0; left &= left - 1) {
        const int t = std::countr_zero(left);
        to[h * kTokensPerPage + t] = from[h * kTokensPerPage + t];
      }
    }
  }

  void Weigh(PageBias::Kind kind) {
    float rescale[kMaxHeads];
    const float* bias = kind == PageBias::Kind::kNone ? nullptr : bias_.values();
    const float* slopes = args_.maybe_slopes ? args_.maybe_slopes + kv_head_ * heads_ : nullptr;
    if (!softmax_.page(scores_, heads_, args_.softcap, bias, slopes, state_.reference, state_.sum, rescale)) return;
    const size_t v_dim = static_cast<size_t>(args_.v_dim);
    for (int h = 0; h < heads_; ++h) {
      if (rescale[h] == 1.0f) continue;
      softmax_.scale(state_.out + static_cast<size_t>(h) * v_dim, v_dim, rescale[h]);
      if (value_codec_) softmax_.scale(acc_ + static_cast<size_t>(h) * acc_dim(), acc_dim(), rescale[h]);
    }
  }

  void AccumulateBlock(const PageCursor& values) {
    if (static_cast<int64_t>(values.run_index()) != value_run_) {
      FinishRun();
      value_codec_ = values.run().codec;
      value_context_ = values.context(kv_head_);
      value_run_ = static_cast<int64_t>(values.run_index());
      std::fill_n(acc_, static_cast<size_t>(heads_) * acc_dim(), 0.0f);
    }
    const uint64_t live = values.page().live;
    const float* weights = scores_;
    if (live != kAllTokens) {
      std::fill_n(weights_, heads_ * kTokensPerPage, 0.0f);
      CopyLive(scores_, live, weights_);
      weights = weights_;
    }
    value_codec_->verbs.accumulate(*value_codec_->state, Reading(values), values.block(kv_head_), weights, heads_,
                                   acc_);
  }

  // Adds what was accumulated in the current run's basis to the output.
  void FinishRun() {
    if (value_codec_ == nullptr) return;
    alignas(64) float out[kMaxHeads * 256];
    value_codec_->verbs.finish(*value_codec_->state, value_context_, acc_, heads_, out);
    softmax_.add_scaled(out, static_cast<size_t>(heads_ * args_.v_dim), 1.0f, state_.out);
    value_codec_ = nullptr;
  }

  size_t acc_dim() const { return static_cast<size_t>(value_codec_->state->acc_dim); }

  const AttendArgs& args_;
  const SoftmaxKernels& softmax_;
  const int heads_;
  const int kv_head_;
  const int query_;
  const int64_t first_row_;
  const int64_t last_row_;
  float* const queries_;       // [heads, k_dim], times the softmax scale
  std::byte* const prepared_;  // for key_run_
  float* const scores_;        // [heads, 64]: scores, then weights, of the current rows
  float* const weights_;       // [heads, 64]: scratch for blocks that hold only some of the rows
  float* const acc_;           // [heads, acc_dim] in the basis of the current value run
  const PartialState state_;
  PageBias bias_;
  ReadAhead ahead_;
  int64_t key_run_ = -1;
  int64_t value_run_ = -1;
  const Codec* value_codec_ = nullptr;
  BlockContext value_context_;
};

// Merges the parts of one (query, KV head) and writes its heads.
void MergeParts(const AttendArgs& args, const AttendPlan& plan, int team_size, size_t group, std::byte* workspace) {
  const SoftmaxKernels& softmax = GetSoftmaxKernels();
  const size_t first = group * static_cast<size_t>(plan.parts);
  const int query = static_cast<int>(group) / args.kv_heads;
  const size_t v_dim = static_cast<size_t>(args.v_dim);
  for (int h = 0; h < plan.heads; ++h) {
    const int head = static_cast<int>(group) % args.kv_heads * plan.heads + h;
    float reference = args.maybe_sinks ? args.maybe_sinks[head] : kHidden;
    for (int p = 0; p < plan.parts; ++p) {
      reference = std::max(reference, StateAt(plan, team_size, first + static_cast<size_t>(p), workspace).reference[h]);
    }
    float* out =
        args.out + static_cast<size_t>(query) * args.out_row_stride + static_cast<size_t>(head) * args.out_head_stride;
    std::fill_n(out, v_dim, 0.0f);
    if (reference == kHidden) continue;
    float sum = args.maybe_sinks ? std::exp(args.maybe_sinks[head] - reference) : 0.0f;
    for (int p = 0; p < plan.parts; ++p) {
      const PartialState part = StateAt(plan, team_size, first + static_cast<size_t>(p), workspace);
      if (part.reference[h] == kHidden) continue;
      const float factor = std::exp(part.reference[h] - reference);
      sum += factor * part.sum[h];
      softmax.add_scaled(part.out + static_cast<size_t>(h) * v_dim, v_dim, factor, out);
    }
    softmax.scale(out, v_dim, 1.0f / sum);
  }
}

}  // namespace

size_t AttendWorkspaceBytes(const AttendArgs& args, int team_size) {
  return Plan(args, team_size).workspace_bytes(team_size);
}

void Attend(const Team& team, const AttendArgs& args, std::byte* workspace) {
  KVANT_DCHECK(args.q_heads % args.kv_heads == 0 && args.q_heads / args.kv_heads <= kMaxHeads);
  const AttendPlan plan = Plan(args, team.size());
  std::byte* scratch = workspace + plan.thread_bytes * static_cast<size_t>(team.rank());
  const auto [first, last] = team.Share(plan.num_items);
  for (size_t i = first; i < last; ++i) {
    Item(args, plan, i, scratch, StateAt(plan, team.size(), i, workspace)).Run();
  }
  team.Sync();
  const auto [first_group, last_group] = team.Share(plan.num_items / static_cast<size_t>(plan.parts));
  for (size_t g = first_group; g < last_group; ++g) MergeParts(args, plan, team.size(), g, workspace);
}

}  // namespace kvant
