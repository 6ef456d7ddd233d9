#include "attention/reference.h"

#include <cmath>
#include <limits>
#include <vector>

#include "attention/page_cursor.h"
#include "base/aligned_buffer.h"

namespace kvant {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

// Rows of one KV head, decoded; row r at [r * dim]. Rows that no page holds are marked.
struct DecodedRows {
  std::vector<double> values;
  std::vector<bool> live;
  std::vector<LogitMap> logit_maps;  // [rows]
};

Status DecodeHead(std::span<const PageRun> runs, int head, int dim, DecodedRows* rows) {
  AlignedBuffer<float> page(static_cast<size_t>(kTokensPerPage * dim));
  for (PageCursor cursor(runs, 0); !cursor.done(); cursor.Next()) {
    const Codec& codec = *cursor.run().codec;
    KVANT_TRY(codec.verbs.decode(*codec.state, cursor.context(head), cursor.block(head), page.data()));
    const size_t first = static_cast<size_t>(cursor.page().first_row);
    if (rows->live.size() < first + kTokensPerPage) {
      rows->live.resize(first + kTokensPerPage);
      rows->logit_maps.resize(first + kTokensPerPage);
      rows->values.resize((first + kTokensPerPage) * static_cast<size_t>(dim));
    }
    for (int t = 0; t < kTokensPerPage; ++t) {
      if (((cursor.page().live >> t) & 1) == 0) continue;
      rows->live[first + static_cast<size_t>(t)] = true;
      rows->logit_maps[first + static_cast<size_t>(t)] = codec.state->logit_map;
      for (int c = 0; c < dim; ++c) {
        rows->values[(first + static_cast<size_t>(t)) * static_cast<size_t>(dim) + static_cast<size_t>(c)] =
            static_cast<double>(page[static_cast<size_t>(t * dim + c)]);
      }
    }
  }
  return Status::Ok();
}

double ScoreOf(const AttendArgs& args, const float* q, const double* k, const LogitMap& map, double slope,
               double mask) {
  double score = 0.0;
  for (int c = 0; c < args.k_dim; ++c) score += static_cast<double>(q[c]) * k[c];
  score *= static_cast<double>(args.scale);
  score = static_cast<double>(map.gain) * score + static_cast<double>(map.shift);
  const double cap = static_cast<double>(args.softcap);
  if (cap > 0.0) score = cap * std::tanh(score / cap);
  return score + slope * mask;
}

double MaskOf(const AttendArgs& args, int query, size_t row) {
  if (args.mask == nullptr) return 0.0;
  if (static_cast<int64_t>(row) >= args.mask_columns) return kHidden;
  return static_cast<double>(ToFloat(args.mask[static_cast<size_t>(query) * args.mask_row_stride + row]));
}

void AttendHead(const AttendArgs& args, int query, int head, const DecodedRows& k, const DecodedRows& v) {
  const float* q = args.queries + static_cast<size_t>(query) * args.query_row_stride +
                   static_cast<size_t>(head) * args.query_head_stride;
  const double slope = args.maybe_slopes ? static_cast<double>(args.maybe_slopes[head]) : 1.0;
  std::vector<double> scores(k.live.size(), kHidden);
  double max = args.maybe_sinks ? static_cast<double>(args.maybe_sinks[head]) : kHidden;
  for (size_t r = 0; r < scores.size(); ++r) {
    if (!k.live[r] || MaskOf(args, query, r) == kHidden) continue;
    const double* key = &k.values[r * static_cast<size_t>(args.k_dim)];
    scores[r] = ScoreOf(args, q, key, k.logit_maps[r], slope, MaskOf(args, query, r));
    max = std::max(max, scores[r]);
  }
  std::vector<double> out(static_cast<size_t>(args.v_dim));
  double sum = args.maybe_sinks ? std::exp(static_cast<double>(args.maybe_sinks[head]) - max) : 0.0;
  for (size_t r = 0; r < scores.size(); ++r) {
    if (scores[r] == kHidden) continue;
    const double p = std::exp(scores[r] - max);
    sum += p;
    if (r >= v.live.size() || !v.live[r]) continue;
    for (size_t c = 0; c < out.size(); ++c) out[c] += p * v.values[r * out.size() + c];
  }
  float* result =
      args.out + static_cast<size_t>(query) * args.out_row_stride + static_cast<size_t>(head) * args.out_head_stride;
  for (size_t c = 0; c < out.size(); ++c) result[c] = sum > 0.0 ? static_cast<float>(out[c] / sum) : 0.0f;
}

}  // namespace

Status ReferenceAttend(const AttendArgs& args) {
  const int heads = args.q_heads / args.kv_heads;
  for (int kv = 0; kv < args.kv_heads; ++kv) {
    DecodedRows k, v;
    KVANT_TRY(DecodeHead(args.keys, kv, args.k_dim, &k));
    KVANT_TRY(DecodeHead(args.values, kv, args.v_dim, &v));
    for (int query = 0; query < args.num_queries; ++query) {
      for (int h = 0; h < heads; ++h) AttendHead(args, query, kv * heads + h, k, v);
    }
  }
  return Status::Ok();
}

}  // namespace kvant
