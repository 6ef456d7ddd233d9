#include "attention/plan.h"

#include <algorithm>

#include "base/aligned_buffer.h"

namespace kvant {
namespace {

// A part shorter than this spends more on preparing queries and merging than it wins.
constexpr int64_t kMinPagesPerPart = 4;

int64_t EndRow(std::span<const PageRun> runs) {
  int64_t end = 0;
  for (const PageRun& run : runs) {
    if (!run.pages.empty()) end = std::max(end, run.pages.back().first_row + kTokensPerPage);
  }
  return end;
}

template <typename Size>
size_t Largest(std::span<const PageRun> runs, Size size) {
  size_t most = 0;
  for (const PageRun& run : runs) most = std::max(most, static_cast<size_t>(size(*run.codec->state)));
  return most;
}

}  // namespace

AttendPlan Plan(const AttendArgs& args, int team_size) {
  AttendPlan plan;
  plan.heads = args.q_heads / args.kv_heads;
  const int64_t pages = EndRow(args.keys) / kTokensPerPage;
  const int whole_items = args.num_queries * args.kv_heads;
  const int64_t wanted = whole_items % team_size == 0 ? 1 : (2 * team_size + whole_items - 1) / whole_items;
  const int64_t parts = std::clamp<int64_t>(std::min(wanted, pages / kMinPagesPerPart), 1, wanted);
  const int64_t pages_per_part = std::max<int64_t>(1, (pages + parts - 1) / parts);
  plan.rows_per_part = pages_per_part * kTokensPerPage;
  plan.parts = static_cast<int>(std::max<int64_t>(1, (pages + pages_per_part - 1) / pages_per_part));
  plan.num_items = static_cast<size_t>(whole_items) * static_cast<size_t>(plan.parts);

  const size_t heads = static_cast<size_t>(plan.heads);
  size_t end = 0;
  const auto reserve = [&end](size_t bytes) {
    const size_t ofs = end;
    end += AlignUp(bytes);
    return ofs;
  };
  plan.query_ofs = reserve(heads * static_cast<size_t>(args.k_dim) * sizeof(float));
  plan.prepared_ofs = reserve(heads * Largest(args.keys, [](const CodecState& s) { return s.prepared_head_bytes; }));
  plan.scores_ofs = reserve(heads * kTokensPerPage * sizeof(float));
  plan.weights_ofs = reserve(heads * kTokensPerPage * sizeof(float));
  plan.acc_ofs = reserve(
      heads * sizeof(float) *
      std::max(Largest(args.values, [](const CodecState& s) { return s.acc_dim; }), static_cast<size_t>(args.v_dim)));
  plan.thread_bytes = end;
  plan.state_bytes = AlignUp(heads * (2 + static_cast<size_t>(args.v_dim)) * sizeof(float));
  return plan;
}

}  // namespace kvant
