#include "bench_model.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <span>

#include "eval/stopwatch.h"
#include "quantile.h"

namespace kvant {
namespace {

constexpr int kChunksPerReport = 4;  // prefill is fed in pieces of so many batches, between which progress is shown

// One cache over all lengths.
class CacheRun {
 public:
  CacheRun(const BenchModelOptions& options, const std::string& cache, const OpenRunner& open,
           const BenchModelProgress& progress)
      : options_(options), cache_(cache), open_(open), progress_(progress) {}

  Result<std::vector<BenchModelRow>> Run();
  Status Fill();

 private:
  int sequences() const { return options_.runner.sequences; }
  Status Open(int length);
  void MakeTokens();
  Status WarmUp();
  Status Feed(int sequence, int length);
  Status FeedAll(int length);
  Result<double> Step(int i);
  Status TimeDecoding(BenchModelRow* row);
  Status Forget(int length);
  Status Measure(int length, BenchModelRow* row);

  const BenchModelOptions& options_;
  const std::string& cache_;
  const OpenRunner& open_;
  const BenchModelProgress& progress_;
  std::unique_ptr<Runner> runner_;
  std::vector<std::vector<int>> tokens_;  ///< of each sequence, as many as the longest context
  double prefill_seconds_ = 0;
};

Status CacheRun::Open(int length) {
  RunnerOptions options = options_.runner;
  options.cache = cache_;
  options.context = length + options_.predict;
  Result<std::unique_ptr<Runner>> opened = open_(options);
  if (!opened.ok()) return opened.status();
  runner_ = *std::move(opened);
  return Status::Ok();
}

void CacheRun::MakeTokens() {
  std::mt19937 random(options_.seed);
  std::uniform_int_distribution<int> any(0, runner_->info().vocab_size - 1);
  tokens_.assign(static_cast<size_t>(sequences()), {});
  for (std::vector<int>& tokens : tokens_) {
    for (int i = 0; i < options_.lengths.back() + options_.predict; ++i) tokens.push_back(any(random));
  }
}

// So that weights are in memory and kernels are loaded when the clock starts.
Status CacheRun::WarmUp() {
  KVANT_TRY(Feed(0, std::min(options_.runner.batch, options_.lengths.front())));
  KVANT_TRY(Step(0).status());
  return Forget(0);
}

Status CacheRun::Feed(int sequence, int length) {
  runner_->UseSequence(sequence);
  const std::span<const int> tokens = tokens_[static_cast<size_t>(sequence)];
  while (runner_->num_tokens() < length) {
    const int64_t held = runner_->num_tokens();
    const int64_t count = std::min<int64_t>(length - held, kChunksPerReport * int64_t{options_.runner.batch});
    KVANT_TRY(runner_->Decode(tokens.subspan(static_cast<size_t>(held), static_cast<size_t>(count)), false));
    progress_(cache_, int64_t{sequence} * length + held + count, int64_t{sequences()} * length);
  }
  return Status::Ok();
}

Status CacheRun::FeedAll(int length) {
  const Stopwatch watch;
  for (int s = 0; s < sequences(); ++s) KVANT_TRY(Feed(s, length));
  prefill_seconds_ += watch.seconds();
  return Status::Ok();
}

// Milliseconds of one more token in each sequence.
Result<double> CacheRun::Step(int i) {
  std::vector<int> next;
  for (const std::vector<int>& tokens : tokens_) next.push_back(tokens[static_cast<size_t>(i)]);
  const Stopwatch watch;
  const Status status = runner_->DecodeTogether(next);
  if (!status.ok()) return status;
  return 1e3 * watch.seconds();
}

Status CacheRun::TimeDecoding(BenchModelRow* row) {
  std::vector<double> times;
  for (int i = 0; i < options_.predict; ++i) {
    const Result<double> time = Step(i);
    if (!time.ok()) return time.status();
    times.push_back(*time);
  }
  row->decode_ms = Quantile(times, 0.5);
  row->decode_p10_ms = Quantile(times, 0.1);
  row->decode_p90_ms = Quantile(times, 0.9);
  row->decode_tokens_per_s = 1e3 * sequences() / row->decode_ms;
  return Status::Ok();
}

Status CacheRun::Forget(int length) {
  for (int s = 0; s < sequences(); ++s) {
    runner_->UseSequence(s);
    if (runner_->num_tokens() > length) KVANT_TRY(runner_->Truncate(length));
  }
  return Status::Ok();
}

Status CacheRun::Measure(int length, BenchModelRow* row) {
  KVANT_TRY(FeedAll(length));
  row->prefill_tokens_per_s = static_cast<double>(sequences()) * length / prefill_seconds_;
  row->cache_bytes = runner_->cache_use().footprint.total();
  KVANT_TRY(TimeDecoding(row));
  return Forget(length);
}

Result<std::vector<BenchModelRow>> CacheRun::Run() {
  std::vector<BenchModelRow> rows;
  for (const int length : options_.lengths) rows.push_back({.cache = cache_, .length = length});
  const auto fail = [](BenchModelRow& row, const Status& status) {
    row = {.cache = row.cache, .length = row.length, .does_not_fit = DoesNotFit(status), .reason = status.message()};
  };
  // A stock cache is allocated for the longest context at once: what that does not fit into may do for a shorter one.
  size_t fitting = rows.size();
  for (; fitting > 0; --fitting) {
    const Status status = Open(rows[fitting - 1].length);
    if (status.ok()) break;
    if (status.code() == StatusCode::kInvalidArgument) return status;
    fail(rows[fitting - 1], status);
  }
  if (fitting == 0) return rows;
  MakeTokens();
  Status status = WarmUp();
  for (size_t i = 0; i < fitting; ++i) {
    if (status.ok()) status = Measure(rows[i].length, &rows[i]);
    if (!status.ok()) fail(rows[i], status);
  }
  return rows;
}

Status CacheRun::Fill() {
  const int length = options_.lengths.back();
  KVANT_TRY(Open(length));
  MakeTokens();
  KVANT_TRY(FeedAll(length));
  for (int i = 0; i < options_.predict; ++i) KVANT_TRY(Step(i).status());
  progress_(cache_, int64_t{sequences()} * length, int64_t{sequences()} * length);
  return Status::Ok();
}

// Relative to the rows of the first cache, which come first.
void CompareWithFirst(size_t lengths, std::vector<BenchModelRow>* rows) {
  for (size_t i = 0; i < rows->size(); ++i) {
    BenchModelRow& row = (*rows)[i];
    if (row.decode_ms > 0) row.x_first = (*rows)[i % lengths].decode_ms / row.decode_ms;
  }
}

}  // namespace

Status FillModel(const BenchModelOptions& options, const std::string& cache, const OpenRunner& open,
                 const BenchModelProgress& progress) {
  return CacheRun(options, cache, open, progress).Fill();
}

bool DoesNotFit(const Status& status) {
  return status.code() == StatusCode::kOutOfMemory || status.message().find("alloc") != std::string::npos;
}

Status CheckLengths(const BenchModelOptions& options, const ModelInfo& model) {
  const int longest = options.lengths.back();
  if (int64_t{longest} + options.predict > model.context_train) {
    return Status::InvalidArgument(StrFormat("--at %d and --predict %d: the model was trained for at most %d tokens",
                                             longest, options.predict, model.context_train));
  }
  const int64_t together = (int64_t{longest} + options.predict) * options.runner.sequences;
  if (together <= std::numeric_limits<int32_t>::max()) return Status::Ok();
  return Status::InvalidArgument(StrFormat("--at %d and --sequences %d: together at most %d tokens", longest,
                                           options.runner.sequences, std::numeric_limits<int32_t>::max()));
}

Result<std::vector<BenchModelRow>> BenchModel(const BenchModelOptions& options, const OpenRunner& open,
                                              const BenchModelProgress& progress) {
  std::vector<BenchModelRow> rows;
  for (const std::string& cache : options.caches) {
    Result<std::vector<BenchModelRow>> of_cache = CacheRun(options, cache, open, progress).Run();
    if (!of_cache.ok()) return of_cache.status();
    rows.insert(rows.end(), of_cache->begin(), of_cache->end());
  }
  CompareWithFirst(options.lengths.size(), &rows);
  return rows;
}

}  // namespace kvant
