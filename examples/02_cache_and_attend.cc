// A cache of one layer without libllama: append rows, seal, attend, and compare with attention over the exact
// rows.
//
//   example_02_cache_and_attend [scheme]      for example "k=int:8 v=int:4 recent=128"
#include <cmath>
#include <cstdio>
#include <random>
#include <string_view>
#include <vector>

#include "attention/attention.h"
#include "base/aligned_buffer.h"
#include "base/team.h"
#include "cache/kv_store.h"
#include "kvant/kv_cache.h"

using namespace kvant;

namespace {

constexpr int kTokens = 1000;
constexpr int kKvHeads = 2;
constexpr int kQHeads = 8;  // 4 query heads read each KV head
constexpr int kDim = 128;
constexpr size_t kRowValues = size_t{kKvHeads} * kDim;
constexpr size_t kQueryValues = size_t{kQHeads} * kDim;
const float kScale = 1.0f / std::sqrt(static_cast<float>(kDim));

using Rows = std::vector<float>;

Rows RandomRows(size_t values, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Rows rows(values);
  for (float& value : rows) value = normal(random);
  return rows;
}

/// softmax(scale q . k) v with the rows as they came: [kQHeads, kDim].
Rows ExactAttention(const Rows& queries, const Rows& keys, const Rows& values) {
  Rows out(kQueryValues);
  for (size_t head = 0; head < kQHeads; ++head) {
    const size_t head_ofs = head / (kQHeads / kKvHeads) * kDim;
    double sum = 0;
    std::vector<double> acc(kDim);
    for (size_t t = 0; t < kTokens; ++t) {
      double score = 0;
      for (size_t c = 0; c < kDim; ++c)
        score += double{queries[head * kDim + c]} * double{keys[t * kRowValues + head_ofs + c]};
      const double weight = std::exp(score * double{kScale});
      sum += weight;
      for (size_t c = 0; c < kDim; ++c) acc[c] += weight * double{values[t * kRowValues + head_ofs + c]};
    }
    for (size_t c = 0; c < kDim; ++c) out[head * kDim + c] = static_cast<float>(acc[c] / sum);
  }
  return out;
}

/// The same from the pages of the cache, by two threads.
Rows CachedAttention(KvCache& cache, const Rows& queries) {
  Rows out(kQueryValues);
  const AttendArgs args = {.keys = cache.keys(0).View(0),
                           .values = cache.values(0).View(0),
                           .kv_heads = kKvHeads,
                           .q_heads = kQHeads,
                           .k_dim = kDim,
                           .v_dim = kDim,
                           .queries = queries.data(),
                           .query_row_stride = kQueryValues,
                           .query_head_stride = kDim,
                           .out = out.data(),
                           .out_row_stride = kQueryValues,
                           .out_head_stride = kDim,
                           .scale = kScale};
  ThreadTeam threads(2);
  AlignedBuffer<std::byte> workspace(AttendWorkspaceBytes(args, threads.size()));
  threads.Run([&](const Team& team) { Attend(team, args, workspace.data()); });
  return out;
}

double RelativeError(const Rows& got, const Rows& wanted) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double{got[i]} - double{wanted[i]}, 2);
    norm += std::pow(double{wanted[i]}, 2);
  }
  return std::sqrt(error / norm);
}

Status Run(std::string_view scheme_text, double* error) {
  const Result<Scheme> scheme = Scheme::Parse(scheme_text);
  if (!scheme.ok()) return scheme.status();
  auto cache = KvCache::Create({.scheme = *scheme, .layers = {{.kv_heads = kKvHeads, .k_dim = kDim, .v_dim = kDim}}});
  if (!cache.ok()) return cache.status();

  const Rows keys = RandomRows(kTokens * kRowValues, 1);
  const Rows values = RandomRows(kTokens * kRowValues, 2);
  KVANT_TRY((*cache)->Append(0, 0, kTokens, keys.data(), values.data()));
  KVANT_TRY((*cache)->Seal(0));

  const Footprint footprint = (*cache)->footprint();
  std::printf("%s: %d tokens in %zu bytes = %.2f bits per value\n", scheme->ToString().c_str(), kTokens,
              footprint.total(), footprint.bits_per_value());
  for (int kind = 0; kind < kNumStreamKinds; ++kind) {
    const std::string_view name = StreamKindName(static_cast<StreamKind>(kind));
    if (footprint.by_kind[kind] == 0) continue;
    std::printf("  %-10.*s %7zu bytes\n", static_cast<int>(name.size()), name.data(), footprint.by_kind[kind]);
  }
  const Rows queries = RandomRows(kQueryValues, 3);
  *error = RelativeError(CachedAttention(**cache, queries), ExactAttention(queries, keys, values));
  std::printf("  attention output: relative error %.4f\n", *error);
  return Status::Ok();
}

}  // namespace

int main(int argc, char** argv) {
  double error = 0;
  const Status status = Run(argc > 1 ? argv[1] : "k=int:8 v=int:8", &error);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    return 2;
  }
  // 8 bits keep the output within 2 %; with a scheme of your own the number printed is what you came for.
  return argc > 1 || error < 0.02 ? 0 : 1;
}
