#include "eval/evaluate.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "eval/logit_file.h"
#include "eval/needle.h"
#include "eval/process_memory.h"
#include "kvant/plan.h"

namespace kvant {
namespace {

using Clock = std::chrono::steady_clock;
double Seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

constexpr const char* kReference = "f16";
bool IsReference(const std::string& cache) { return cache == kReference || cache == "llama:f16"; }

Status CheckRange(const char* name, int value, int min, int max) {
  if (value >= min && value <= max) return Status::Ok();
  return Status::InvalidArgument(StrFormat("%s %d is not accepted; accepted: %d..%d", name, value, min, max));
}

Status CheckOptions(const EvaluateOptions& o) {
  KVANT_TRY(CheckRange("tokens", o.tokens, 8, 1 << 24));
  KVANT_TRY(CheckRange("skip", o.skip, 1, o.tokens - 2));
  KVANT_TRY(CheckRange("batch", o.batch, 1, 1 << 16));
  KVANT_TRY(CheckRange("scored batch", o.scored_batch, 1, 1 << 16));
  KVANT_TRY(CheckRange("needles", o.needles, 0, 1000));
  return CheckRange("decode tokens", o.decode_tokens, 0, 1 << 16);
}

/// One evaluation: what its runs share.
class Evaluation {
 public:
  Evaluation(const EvaluateOptions& options, const OpenRunner& open, const EvaluateProgress& progress)
      : options_(options), open_(open), progress_(progress), needles_(MakeNeedles(options.needles, options.seed)) {}

  Status Prepare(std::string_view text);
  Result<ReportRow> Run(const std::string& cache);

 private:
  int ContextTokens() const { return options_.tokens + std::max(kNeedleReserveTokens, options_.decode_tokens); }
  Result<std::unique_ptr<Runner>> Open(const std::string& cache, int context) const;
  Status CheckCaches() const;
  Status Prefill(Runner& runner, ReportRow* row) const;
  Status Score(Runner& runner, ReportRow* row);
  Status ScorePosition(std::span<const float> logits, int pos, Divergence* divergence);
  Status TimeDecoding(Runner& runner, ReportRow* row) const;
  Status Feed(Runner& runner, int pos, int count, bool all_logits) const;

  const EvaluateOptions& options_;
  const OpenRunner& open_;
  const EvaluateProgress& progress_;
  const std::vector<Needle> needles_;
  std::vector<int> tokens_;
  std::unique_ptr<LogitFile> reference_;  ///< row i: position skip + i
  std::vector<float> reference_logits_;   ///< one row of it
  std::string stage_;
};

Result<std::unique_ptr<Runner>> Evaluation::Open(const std::string& cache, int context) const {
  return open_({.model_path = options_.model_path,
                .cache = cache,
                .context = context,
                .batch = std::max(options_.batch, options_.scored_batch),
                .threads = options_.threads,
                .memory_limit_bytes = IsReference(cache) ? 0 : options_.memory_limit_bytes,
                .maybe_calibration = options_.maybe_calibration});
}

Status Evaluation::CheckCaches() const {
  for (const std::string& cache : options_.caches) {
    const auto runner = Open(cache, std::min(ContextTokens(), 4 * kTokensPerPage));
    if (!runner.ok()) return runner.status();
  }
  return Status::Ok();
}

Status Evaluation::Prepare(std::string_view text) {
  const auto runner = Open(kReference, 4 * kTokensPerPage);
  if (!runner.ok()) return runner.status();
  const ModelInfo& model = (*runner)->info();
  if (ContextTokens() > model.context_train) {
    return Status::InvalidArgument(StrFormat("tokens %d is not accepted: the model's context is %d; accepted: up to %d",
                                             options_.tokens, model.context_train,
                                             model.context_train - (ContextTokens() - options_.tokens)));
  }
  Result<std::vector<int>> tokens =
      HideNeedles(**runner, text, options_.text_name, needles_, EvenDepths(options_.needles), options_.tokens);
  if (!tokens.ok()) return tokens.status();
  tokens_ = std::move(*tokens);
  Result<LogitFile> file = LogitFile::Create(model.vocab_size);
  if (!file.ok()) return file.status();
  reference_ = std::make_unique<LogitFile>(std::move(*file));
  reference_logits_.resize(static_cast<size_t>(model.vocab_size));
  return CheckCaches();
}

Status Evaluation::Feed(Runner& runner, int pos, int count, bool all_logits) const {
  KVANT_TRY(
      runner.Decode(std::span(tokens_).subspan(static_cast<size_t>(pos), static_cast<size_t>(count)), all_logits));
  progress_(stage_, pos + count, options_.tokens);
  return Status::Ok();
}

Status Evaluation::Prefill(Runner& runner, ReportRow* row) const {
  const auto start = Clock::now();
  for (int pos = 0; pos < options_.skip; pos += options_.batch) {
    KVANT_TRY(Feed(runner, pos, std::min(options_.batch, options_.skip - pos), false));
  }
  const double seconds = Seconds(start);
  row->prefill_tokens_per_s = options_.skip / seconds;
  row->encode_share = runner.cache_use().seal_seconds / seconds;
  return Status::Ok();
}

// The reference run writes its logits and is compared with itself, which gives exact zeros.
Status Evaluation::ScorePosition(std::span<const float> logits, int pos, Divergence* divergence) {
  const int64_t index = pos - options_.skip;
  if (index == reference_->num_rows()) KVANT_TRY(reference_->Append(logits));
  KVANT_TRY(reference_->Read(index, reference_logits_));
  divergence->Add(reference_logits_, logits, tokens_[static_cast<size_t>(pos) + 1]);
  return Status::Ok();
}

Status Evaluation::Score(Runner& runner, ReportRow* row) {
  Divergence divergence;
  for (int pos = options_.skip; pos < options_.tokens; pos += options_.scored_batch) {
    const int count = std::min(options_.scored_batch, options_.tokens - pos);
    KVANT_TRY(Feed(runner, pos, count, true));
    // Nothing follows the last token.
    for (int i = 0; i < count && pos + i + 1 < options_.tokens; ++i) {
      KVANT_TRY(ScorePosition(runner.Logits(i), pos + i, &divergence));
    }
  }
  row->divergence = divergence.Summarize();
  return Status::Ok();
}

// Which tokens are fed makes no difference to the time; the text's own are the same for every cache.
Status Evaluation::TimeDecoding(Runner& runner, ReportRow* row) const {
  std::vector<double> milliseconds;
  for (int i = 0; i < options_.decode_tokens; ++i) {
    const auto start = Clock::now();
    const size_t pos = static_cast<size_t>(i) % tokens_.size();
    KVANT_TRY(runner.Decode(std::span(tokens_).subspan(pos, 1), false));
    milliseconds.push_back(1e3 * Seconds(start));
  }
  if (milliseconds.empty()) return Status::Ok();
  const auto median = milliseconds.begin() + static_cast<ptrdiff_t>(milliseconds.size() / 2);
  std::nth_element(milliseconds.begin(), median, milliseconds.end());
  row->decode_ms = *median;
  return Status::Ok();
}

Result<ReportRow> Evaluation::Run(const std::string& cache) {
  stage_ = cache;
  ReportRow row;
  row.cache = cache;
  if (const Result<Scheme> scheme = ReadScheme(cache); scheme.ok()) row.scheme = scheme->ToString();
  const int64_t memory_before = PrivateMemoryBytes();
  Result<std::unique_ptr<Runner>> opened = Open(cache, ContextTokens());
  if (!opened.ok()) return opened.status();
  Runner& runner = **opened;
  KVANT_TRY(Prefill(runner, &row));
  KVANT_TRY(Score(runner, &row));
  row.use = runner.cache_use();
  const Result<int> right = CountNeedles(runner, needles_);
  if (!right.ok()) return right.status();
  row.needles_right = *right;
  KVANT_TRY(TimeDecoding(runner, &row));
  row.process_bytes = PrivateMemoryBytes() - memory_before;  // while generating: prefill's scratch is free again
  return row;
}

}  // namespace

Result<Report> Evaluate(const EvaluateOptions& given, std::string_view text, const OpenRunner& open,
                        const EvaluateProgress& progress) {
  EvaluateOptions options = given;
  if (options.skip < 0) options.skip = options.tokens / 2;
  KVANT_TRY(CheckOptions(options));
  std::erase_if(options.caches, IsReference);
  Evaluation evaluation(options, open, progress);
  KVANT_TRY(evaluation.Prepare(text));
  Report report{.model = std::filesystem::path(options.model_path).filename().string(),
                .text = std::filesystem::path(options.text_name).filename().string(),
                .tokens = options.tokens,
                .skip = options.skip,
                .batch = options.batch,
                .scored_batch = options.scored_batch,
                .needles = options.needles,
                .seed = options.seed,
                .threads = options.threads,
                .rows = {}};
  options.caches.insert(options.caches.begin(), kReference);
  for (const std::string& cache : options.caches) {
    Result<ReportRow> row = evaluation.Run(cache);
    if (!row.ok()) return row.status();
    report.rows.push_back(std::move(*row));
  }
  return report;
}

}  // namespace kvant
