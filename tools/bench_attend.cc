#include "bench_attend.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <random>

#include "attention/attention.h"
#include "attention/reference.h"
#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "base/team.h"
#include "cache/kv_store.h"
#include "kvant/kv_cache.h"
#include "llama/runner_stock_attention.h"
#include "quantile.h"

namespace kvant {
namespace {

constexpr double kMaxError = 3e-3;  // queries and weights of one plane, against 2-bit codes, come to 2e-3
constexpr int64_t kCheckedTokens = 2048;
constexpr int64_t kPoolRows = 4096;
constexpr double kRopeBase = 500000;  // for keys before RoPE

// Rows that look like a cache: channels of different scale, a common offset. Reused in turn: what counts for time is
// that the pages are distinct memory, what counts for codes is that they are random.
class RowPool {
 public:
  RowPool(int dim, uint32_t seed) : dim_(dim), values_(static_cast<size_t>(kPoolRows * dim)) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    std::vector<float> gain(static_cast<size_t>(dim)), offset(static_cast<size_t>(dim));
    for (float& g : gain) g = std::exp(0.4f * normal(rng));
    for (float& o : offset) o = 0.5f * normal(rng);
    for (size_t i = 0; i < values_.size(); ++i) {
      const size_t c = i % static_cast<size_t>(dim);
      values_[i] = gain[c] * (normal(rng) + offset[c]);
    }
  }
  const float* Row(int64_t i) const { return values_.data() + (i % kPoolRows) * dim_; }

 private:
  int dim_;
  std::vector<float> values_;
};

int64_t PoolIndex(int64_t token, int head) { return token + 577 * head; }

Status Fill(KvStore& store, ThreadTeam& threads, int64_t tokens, const RowPool& pool) {
  const int heads = store.config().kv_heads;
  const int dim = store.config().codec.shape().dim;
  constexpr int64_t kBatch = 512;
  const size_t width = static_cast<size_t>(heads * dim);
  std::vector<float> rows(kBatch * width);
  std::vector<int64_t> index(kBatch);
  for (int64_t first = 0; first < tokens; first += kBatch) {
    const int64_t count = std::min(kBatch, tokens - first);
    for (int64_t t = 0; t < count; ++t) {
      index[static_cast<size_t>(t)] = first + t;
      for (int h = 0; h < heads; ++h) {
        std::copy_n(pool.Row(PoolIndex(first + t, h)), dim,
                    &rows[static_cast<size_t>(t) * width + static_cast<size_t>(h * dim)]);
      }
    }
    Status status;
    threads.Run([&](const Team& team) {
      const RowSource source = {rows.data(), width * sizeof(float), false};
      Status mine = store.Write(team, 0, std::span(index).first(static_cast<size_t>(count)), source);
      if (mine.ok()) mine = store.Seal(team, 0);
      if (team.leader()) status = mine;
    });
    KVANT_TRY(status);
  }
  return Status::Ok();
}

// A filled cache of one layer with its query and output.
class Subject {
 public:
  static Result<std::unique_ptr<Subject>> Create(const BenchAttendOptions& o, const std::string& scheme_text,
                                                 int64_t tokens, ThreadTeam& threads, const RowPool& k,
                                                 const RowPool& v) {
    Result<Scheme> scheme = Scheme::Parse(scheme_text);
    if (!scheme.ok()) return scheme.status();
    scheme->sink_tokens = 0;
    scheme->recent_tokens = 0;
    auto cache = KvCache::Create({.scheme = *scheme,
                                  .layers = {{o.kv_heads, o.dim, o.dim}},
                                  .ropes = {RopeShape::OfBase(kRopeBase, o.dim, false)}});
    if (!cache.ok()) return cache.status();
    auto subject = std::unique_ptr<Subject>(new Subject(o, *std::move(cache)));
    KVANT_TRY(Fill(subject->cache_->keys(0), threads, tokens, k));
    KVANT_TRY(Fill(subject->cache_->values(0), threads, tokens, v));
    subject->args_.keys = subject->cache_->keys(0).View(0);
    subject->args_.values = subject->cache_->values(0).View(0);
    subject->workspace_ = AlignedBuffer<std::byte>(AttendWorkspaceBytes(subject->args_, threads.size()));
    return subject;
  }

  const float* queries() const { return queries_.data(); }
  const float* out() const { return out_.data(); }
  size_t out_size() const { return out_.size(); }
  size_t bytes() const { return cache_->keys(0).footprint().total() + cache_->values(0).footprint().total(); }
  void Run(ThreadTeam& threads) {
    threads.Run([&](const Team& team) { Attend(team, args_, workspace_.data()); });
  }
  Status RunReference() { return ReferenceAttend(args_); }

 private:
  Subject(const BenchAttendOptions& o, std::unique_ptr<KvCache> cache)
      : cache_(std::move(cache)),
        queries_(static_cast<size_t>(o.kv_heads * o.heads_per_kv * o.dim)),
        out_(queries_.size()) {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < queries_.size(); ++i) queries_[i] = normal(rng);
    const size_t dim = static_cast<size_t>(o.dim);
    const size_t width = queries_.size();
    args_ = {.keys = {},
             .values = {},
             .kv_heads = o.kv_heads,
             .q_heads = o.kv_heads * o.heads_per_kv,
             .k_dim = o.dim,
             .v_dim = o.dim,
             .queries = queries_.data(),
             .query_row_stride = width,
             .query_head_stride = dim,
             .out = out_.data(),
             .out_row_stride = width,
             .out_head_stride = dim,
             .scale = 1.0f / std::sqrt(static_cast<float>(o.dim))};
  }

  std::unique_ptr<KvCache> cache_;
  AlignedBuffer<float> queries_;
  AlignedBuffer<float> out_;
  AttendArgs args_;
  AlignedBuffer<std::byte> workspace_;
};

double RelativeError(const float* got, const float* want, size_t n) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    error += d * d;
    norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(error / norm);
}

double Milliseconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// GB/s of summing a buffer of `bytes` by all threads.
double ReadBandwidth(ThreadTeam& threads, size_t bytes, int repeats) {
  AlignedBuffer<uint64_t> buffer(bytes / sizeof(uint64_t));
  std::iota(buffer.data(), buffer.data() + buffer.size(), 0);
  std::vector<uint64_t> sums(static_cast<size_t>(threads.size()));
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    best = std::min(best, Milliseconds([&] {
                      threads.Run([&](const Team& team) {
                        const auto [first, last] = team.Share(buffer.size());
                        sums[static_cast<size_t>(team.rank())] +=
                            std::accumulate(buffer.data() + first, buffer.data() + last, uint64_t{0});
                      });
                    }));
  }
  const bool used = sums[0] != 1;  // the sums must not be optimised away
  return used ? static_cast<double>(bytes) / best * 1e-6 : 0.0;
}

Result<double> CheckedError(const BenchAttendOptions& o, const std::string& scheme, ThreadTeam& threads,
                            const RowPool& k, const RowPool& v) {
  auto small = Subject::Create(o, scheme, kCheckedTokens, threads, k, v);
  if (!small.ok()) return small.status();
  (*small)->Run(threads);
  const std::vector<float> got((*small)->out(), (*small)->out() + (*small)->out_size());
  KVANT_TRY((*small)->RunReference());
  const double error = RelativeError(got.data(), (*small)->out(), got.size());
  if (error <= kMaxError) return error;
  return Status::Internal(StrFormat("%s: kernel error %.2e exceeds %.0e; not timed", scheme.c_str(), error, kMaxError));
}

Result<std::unique_ptr<StockAttention>> FilledStock(const BenchAttendOptions& o, int64_t tokens, const RowPool& k,
                                                    const RowPool& v) {
  auto stock = StockAttention::Create({o.kv_heads, o.kv_heads * o.heads_per_kv, o.dim, tokens, o.threads});
  if (!stock.ok()) return stock;
  for (int h = 0; h < o.kv_heads; ++h) {
    for (int64_t t = 0; t < tokens; ++t) {
      const size_t at = static_cast<size_t>((h * tokens + t) * o.dim);
      for (int c = 0; c < o.dim; ++c) {
        (*stock)->keys()[at + static_cast<size_t>(c)] = ToF16(k.Row(PoolIndex(t, h))[c]);
        (*stock)->values()[at + static_cast<size_t>(c)] = ToF16(v.Row(PoolIndex(t, h))[c]);
      }
    }
  }
  return stock;
}

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t value = line.find(": ");
    if (line.starts_with("model name") && value != std::string::npos) return line.substr(value + 2);
  }
  return "unknown";
}

class Bench {
 public:
  explicit Bench(const BenchAttendOptions& options) : o_(options), threads_(options.threads) {}

  Result<BenchAttendReport> Run() {
    const size_t token_bytes = 4 * static_cast<size_t>(o_.dim * o_.kv_heads);
    report_.tokens = static_cast<int64_t>(o_.fp16_bytes / token_bytes) / kTokensPerPage * kTokensPerPage;
    if (report_.tokens < kTokensPerPage) return Status::InvalidArgument("the cache size is too small for one page");
    report_.cpu = CpuName();
    report_.simd_target = SimdTarget();
    report_.read_gb_per_s = ReadBandwidth(threads_, o_.fp16_bytes, 5);
    KVANT_TRY(AddRaw());
    KVANT_TRY(AddStock());
    for (const std::string& scheme : o_.schemes) KVANT_TRY(AddScheme(scheme));
    const double token_heads = static_cast<double>(TokenHeads());
    Summarise(base_times_, &report_.rows[0]);
    for (BenchAttendRow& row : report_.rows) {
      row.ns_per_token = row.median_ms * 1e6 / token_heads;
      row.gb_per_s = row.bytes_per_token * token_heads / row.median_ms * 1e-6;
    }
    return std::move(report_);
  }

 private:
  int64_t TokenHeads() const { return report_.tokens * o_.kv_heads; }
  double Bytes16Bit() const { return 4.0 * o_.dim; }

  Status AddRaw() {
    const Result<double> error = CheckedError(o_, "raw", threads_, k_, v_);
    if (!error.ok()) return error.status();
    auto base = Subject::Create(o_, "raw", report_.tokens, threads_, k_, v_);
    if (!base.ok()) return base.status();
    base_ = *std::move(base);
    report_.rows.push_back(
        {.scheme = "raw", .bytes_per_token = Bytes16Bit(), .error = *error, .x_raw = 1, .is_16_bit = true});
    return Status::Ok();
  }

  Status AddStock() {
    auto stock = FilledStock(o_, report_.tokens, k_, v_);
    if (stock.status().code() == StatusCode::kNotSupported) return Status::Ok();
    if (!stock.ok()) return stock.status();
    base_->Run(threads_);
    const std::vector<float> want(base_->out(), base_->out() + base_->out_size());
    BenchAttendRow row = {.scheme = kGgmlScheme, .bytes_per_token = Bytes16Bit(), .is_16_bit = true};
    row.error = RelativeError((*stock)->Run(base_->queries()), want.data(), want.size());
    Time([&] { (*stock)->Run(base_->queries()); }, &row);
    report_.rows.push_back(row);
    return Status::Ok();
  }

  Status AddScheme(const std::string& scheme) {
    const Result<double> error = CheckedError(o_, scheme, threads_, k_, v_);
    if (!error.ok()) return error.status();
    auto subject = Subject::Create(o_, scheme, report_.tokens, threads_, k_, v_);
    if (!subject.ok()) return subject.status();
    BenchAttendRow row = {.scheme = scheme, .error = *error};
    row.bytes_per_token = static_cast<double>((*subject)->bytes()) / static_cast<double>(TokenHeads());
    row.is_16_bit = row.bytes_per_token >= Bytes16Bit();
    Time([&] { (*subject)->Run(threads_); }, &row);
    report_.rows.push_back(row);
    return Status::Ok();
  }

  // Interleaved with raw: both see the same neighbours.
  void Time(const std::function<void()>& work, BenchAttendRow* row) {
    std::vector<double> times, ratios;
    for (int i = 0; i < o_.repeats; ++i) {
      base_times_.push_back(Milliseconds([&] { base_->Run(threads_); }));
      times.push_back(Milliseconds(work));
      ratios.push_back(base_times_.back() / times.back());
    }
    Summarise(times, row);
    row->x_raw = Quantile(ratios, 0.5);
  }

  static void Summarise(const std::vector<double>& times, BenchAttendRow* row) {
    row->median_ms = Quantile(times, 0.5);
    row->p10_ms = Quantile(times, 0.1);
    row->p90_ms = Quantile(times, 0.9);
  }

  const BenchAttendOptions& o_;
  ThreadTeam threads_;
  const RowPool k_{o_.dim, 1}, v_{o_.dim, 2};
  BenchAttendReport report_;
  std::unique_ptr<Subject> base_;
  std::vector<double> base_times_;
};

}  // namespace

Result<BenchAttendReport> BenchAttend(const BenchAttendOptions& options) { return Bench(options).Run(); }

}  // namespace kvant
