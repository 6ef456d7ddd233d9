#include "model_fit.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "child_process.h"

namespace kvant {
namespace {

constexpr int kStep = 256;              // tokens; libllama rounds contexts up to this
constexpr int kShort[] = {1024, 4096};  // contexts that the first promise is made of
constexpr double kCloseEnough = 0.98;   // of the limit, or of the most tokens that may fit
constexpr int kMostTrials = 6;
constexpr int kDecoded = 8;  // the last tokens of a context are decoded, for the buffers that this takes

struct Trial {
  int tokens;
  int64_t bytes;
};

class Search {
 public:
  Search(int64_t limit_bytes, int max_tokens, const FillContext& fill)
      : limit_(limit_bytes), max_(max_tokens), fill_(fill), too_many_(max_tokens + 1) {}

  Result<FitRow> Run();

 private:
  Status Try(int tokens);
  int Most() const;
  int Promise() const;
  bool IsDone() const;
  double Slope() const;
  double SlopeToBest() const;

  const int64_t limit_;
  const int max_;
  const FillContext& fill_;
  std::vector<Trial> trials_;  ///< that came to an end, in order of their tokens
  Trial best_ = {0, 0};        ///< the longest that fits
  int too_many_;               ///< the shortest that does not
};

Status Search::Try(int tokens) {
  const Result<int64_t> bytes = fill_(tokens);
  if (!bytes.ok() && !DoesNotFit(bytes.status())) return bytes.status();
  if (bytes.ok()) {
    trials_.push_back({tokens, *bytes});
    std::ranges::sort(trials_, {}, &Trial::tokens);
  }
  if (!bytes.ok() || *bytes > limit_) {
    too_many_ = std::min(too_many_, tokens);
  } else if (tokens > best_.tokens) {
    best_ = {tokens, *bytes};
  }
  return Status::Ok();
}

// Bytes of one more token, between the longest two.
double Search::Slope() const {
  if (trials_.size() < 2) return 0;
  const Trial& a = trials_[trials_.size() - 2];
  const Trial& b = trials_.back();
  return static_cast<double>(b.bytes - a.bytes) / (b.tokens - a.tokens);
}

// The same between the shortest and the longest that fits: the buffers of one page more or less matter little then.
double Search::SlopeToBest() const {
  if (trials_.empty() || best_.tokens <= trials_.front().tokens) return Slope();
  return static_cast<double>(best_.bytes - trials_.front().bytes) / (best_.tokens - trials_.front().tokens);
}

// The most tokens that may fit.
int Search::Most() const { return too_many_ > max_ ? max_ : (too_many_ - 1) / kStep * kStep; }

// Tokens between those that fit and those that do not: by the trials where they tell, else the (geometric) middle.
int Search::Promise() const {
  const int most = Most();
  double tokens = most < max_ ? 0 : max_;
  if (Slope() > 0) {
    tokens = trials_.back().tokens + static_cast<double>(limit_ - trials_.back().bytes) / Slope();
  }
  if (tokens >= max_ && most == max_) return max_;
  const double rounded = std::floor(tokens / kStep) * kStep;
  if (rounded > best_.tokens && rounded <= most) return static_cast<int>(rounded);
  const double middle = std::sqrt(static_cast<double>(std::max(best_.tokens, kStep)) * most);
  return std::max(best_.tokens + kStep, static_cast<int>(middle) / kStep * kStep);
}

bool Search::IsDone() const {
  if (best_.tokens >= kCloseEnough * Most()) return true;
  return static_cast<double>(best_.bytes) >= kCloseEnough * static_cast<double>(limit_);
}

Result<FitRow> Search::Run() {
  for (const int tokens : kShort) {
    if (best_.tokens < max_ && too_many_ > max_) KVANT_TRY(Try(std::min(tokens, max_)));
  }
  for (int i = 0; i < kMostTrials && !IsDone(); ++i) KVANT_TRY(Try(Promise()));
  FitRow row = {.tokens = best_.tokens, .used_bytes = best_.bytes, .bytes_per_token = SlopeToBest()};
  row.is_whole_context = best_.tokens == max_;
  if (best_.tokens == 0) {
    row.reason = trials_.empty() ? StrFormat("%d tokens are too many", too_many_)
                                 : StrFormat("%d tokens already take %.2f GB", trials_.front().tokens,
                                             static_cast<double>(trials_.front().bytes) / 1e9);
  }
  return row;
}

// Fills one context here and now, and watches the memory.
Result<int64_t> Fill(const BenchModelOptions& options, const std::string& cache, int tokens, const OpenRunner& open,
                     const ReadMemory& read_memory, const BenchModelProgress& progress) {
  int64_t most = 0;
  BenchModelOptions one = options;
  one.predict = std::min(kDecoded, tokens - 1);
  one.lengths = {tokens - one.predict};
  KVANT_TRY(FillModel(one, cache, open, [&](std::string_view stage, int64_t done, int64_t total) {
    most = std::max(most, read_memory().used_bytes);
    progress(stage, done, total);
  }));
  return most;
}

}  // namespace

Result<FitRow> FindLargestContext(int64_t limit_bytes, int max_tokens, const FillContext& fill) {
  return Search(limit_bytes, max_tokens, fill).Run();
}

Result<std::vector<FitRow>> FitModel(const BenchModelOptions& options, const ModelInfo& model, int64_t limit_bytes,
                                     const OpenRunner& open, const ReadMemory& read_memory,
                                     const BenchModelProgress& progress) {
  std::vector<FitRow> rows;
  for (const std::string& cache : options.caches) {
    const auto fill = [&](int tokens) -> Result<int64_t> {
      const auto work = [&] { return Fill(options, cache, tokens, open, read_memory, progress); };
      return read_memory().is_high_water ? InChildProcess(work) : work();
    };
    Result<FitRow> row = FindLargestContext(limit_bytes, model.context_train, fill);
    if (!row.ok()) return row.status();
    row->cache = cache;
    rows.push_back(*std::move(row));
    if (rows.front().tokens > 0) rows.back().x_first = static_cast<double>(rows.back().tokens) / rows.front().tokens;
  }
  return rows;
}

}  // namespace kvant
