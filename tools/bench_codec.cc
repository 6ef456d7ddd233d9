#include "bench_codec.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>
#include <random>

#include "base/aligned_buffer.h"
#include "codec/codec.h"
#include "eval/table.h"
#include "kvant/scheme.h"

namespace kvant {
namespace {

constexpr int kFitRows = 2048;
// For keys before RoPE: a page in the middle of a text.
constexpr double kRopeBase = 500000;
constexpr int32_t kFirstPosition = 5000;

// Median nanoseconds of a call, over samples of about a millisecond.
double Nanoseconds(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  const auto once = [&](int calls) {
    const auto start = Clock::now();
    for (int i = 0; i < calls; ++i) work();
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  };
  const int calls = std::max(1, static_cast<int>(1e6 / std::max(once(1), once(1))));
  std::vector<double> samples;
  for (int i = 0; i < 9; ++i) samples.push_back(once(calls) / calls);
  std::nth_element(samples.begin(), samples.begin() + 4, samples.end());
  return samples[4];
}

AlignedBuffer<float> Gaussian(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  AlignedBuffer<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = normal(rng);
  return values;
}

Status AddSide(const CodecChoice& choice, Side side, int heads, int dim, Table* table) {
  const Result<Codec> made = MakeCodec(choice.name, choice.options, {.side = side, .dim = dim});
  if (!made.ok()) return made.status();
  const Codec& codec = *made;
  const CodecState& s = *codec.state;
  const size_t head_values = static_cast<size_t>(heads * dim);
  const AlignedBuffer<float> rows = Gaussian(static_cast<size_t>(kFitRows * dim), 1);
  const AlignedBuffer<float> queries = Gaussian(head_values, 2);
  AlignedBuffer<float> decoded(static_cast<size_t>(kTokensPerPage * dim)), out(head_values);
  AlignedBuffer<float> scores(static_cast<size_t>(heads * kTokensPerPage));
  AlignedBuffer<float> acc(static_cast<size_t>(heads * std::max(s.acc_dim, dim)));
  AlignedBuffer<std::byte> block(codec.block_bytes()), basis_bytes(s.basis_bytes);
  AlignedBuffer<std::byte> prepared(static_cast<size_t>(heads) * s.prepared_head_bytes);
  BlockContext context;
  const Result<std::shared_ptr<const Rope>> rope = Rope::Make(RopeShape::OfBase(kRopeBase, dim, false), dim);
  if (!rope.ok()) return rope.status();
  int32_t positions[kTokensPerPage];
  std::iota(positions, positions + kTokensPerPage, kFirstPosition);
  if (s.keys_before_rope) context = {.positions = positions, .rope = rope->get()};
  if (codec.info->fit_basis != nullptr && s.basis_bytes > 0) {
    KVANT_TRY(codec.info->fit_basis(s, {.rows = rows.data(), .tokens = kFitRows}, basis_bytes.data()));
    context.basis = basis_bytes.data();
  }
  KVANT_TRY(codec.verbs.encode(s, context, rows.data(), block.data()));
  const auto cell = [](double ns) { return StrFormat("%.0f", ns); };
  std::vector<std::string> cells = {choice.ToString(), side == Side::kKey ? "K" : "V"};
  cells.push_back(cell(Nanoseconds([&] { (void)codec.verbs.encode(s, context, rows.data(), block.data()); })));
  cells.push_back(cell(Nanoseconds([&] { (void)codec.verbs.decode(s, context, block.data(), decoded.data()); })));
  if (side == Side::kKey) {
    cells.push_back(
        cell(Nanoseconds([&] { codec.verbs.prepare_query(s, context, queries.data(), heads, prepared.data()); })));
    cells.push_back(
        cell(Nanoseconds([&] { codec.verbs.score(s, context, block.data(), prepared.data(), heads, scores.data()); })));
  } else {
    std::fill_n(scores.data(), scores.size(), 0.01f);
    cells.push_back(cell(Nanoseconds([&] { codec.verbs.finish(s, context, acc.data(), heads, out.data()); })));
    cells.push_back(
        cell(Nanoseconds([&] { codec.verbs.accumulate(s, context, block.data(), scores.data(), heads, acc.data()); })));
  }
  table->AddRow(std::move(cells));
  return Status::Ok();
}

}  // namespace

Result<std::string> BenchCodecTable(const std::vector<std::string>& schemes, int heads, int dim) {
  Table table({{"codec"},
               {"side"},
               {"encode", true},
               {"decode", true},
               {"query or finish", true},
               {"score or accumulate", true}});
  for (const std::string& text : schemes) {
    const Result<Scheme> scheme = Scheme::Parse(text);
    if (!scheme.ok()) return scheme.status();
    for (const CodecChoice& key : scheme->Choices(true)) KVANT_TRY(AddSide(key, Side::kKey, heads, dim, &table));
    for (const CodecChoice& v : scheme->Choices(false)) KVANT_TRY(AddSide(v, Side::kValue, heads, dim, &table));
  }
  return table.ToText() + StrFormat("\nNanoseconds for one block of %d x %d, %d query heads, one thread, in cache.",
                                    kTokensPerPage, dim, heads);
}

}  // namespace kvant
