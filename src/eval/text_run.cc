#include "eval/text_run.h"

#include <algorithm>

#include "eval/process_memory.h"
#include "eval/stopwatch.h"

namespace kvant {

Status TextRun::Prepare(const Runner& model, std::string_view text) {
  if (context_tokens() > model.info().context_train) {
    const int reserve = context_tokens() - options_.tokens;
    return Status::InvalidArgument(StrFormat("tokens %d is not accepted: the model's context is %d; accepted: up to %d",
                                             options_.tokens, model.info().context_train,
                                             model.info().context_train - reserve));
  }
  Result<std::vector<int>> tokens =
      HideNeedles(model, text, options_.name, needles_, EvenDepths(options_.needles), options_.tokens);
  if (!tokens.ok()) return tokens.status();
  tokens_ = std::move(*tokens);
  reference_logits_.resize(static_cast<size_t>(model.info().vocab_size));
  return Status::Ok();
}

Status TextRun::Run(const TaskRun& run, ReportRow* row) {
  if (run.is_reference) {
    Result<LogitFile> file = LogitFile::Create(static_cast<int>(reference_logits_.size()));
    if (!file.ok()) return file.status();
    reference_ = std::make_unique<LogitFile>(std::move(*file));
  }
  const int64_t memory_before = PrivateMemoryBytes();
  Result<std::unique_ptr<Runner>> opened = run.Open(context_tokens());
  if (!opened.ok()) return opened.status();
  Runner& runner = **opened;
  KVANT_TRY(Prefill(run, runner, row));
  KVANT_TRY(Score(run, runner, row));
  row->use = runner.cache_use();
  const Result<int> right = CountNeedles(runner, needles_);
  if (!right.ok()) return right.status();
  row->needles_right = *right;
  KVANT_TRY(TimeDecoding(runner, row));
  row->process_bytes = PrivateMemoryBytes() - memory_before;  // while generating: prefill's scratch is free again
  return Status::Ok();
}

Status TextRun::Feed(const TaskRun& run, Runner& runner, int pos, int count, bool all_logits) const {
  KVANT_TRY(
      runner.Decode(std::span(tokens_).subspan(static_cast<size_t>(pos), static_cast<size_t>(count)), all_logits));
  run.progress(pos + count, options_.tokens);
  return Status::Ok();
}

Status TextRun::Prefill(const TaskRun& run, Runner& runner, ReportRow* row) const {
  const Stopwatch watch;
  for (int pos = 0; pos < options_.skip; pos += options_.batch) {
    KVANT_TRY(Feed(run, runner, pos, std::min(options_.batch, options_.skip - pos), false));
  }
  const double seconds = watch.seconds();
  row->prefill_tokens_per_s = options_.skip / seconds;
  row->encode_share = runner.cache_use().seal_seconds / seconds;
  return Status::Ok();
}

// The reference run writes its logits and is compared with itself, which gives exact zeros.
Status TextRun::ScorePosition(std::span<const float> logits, int pos, Divergence* divergence) {
  const int64_t index = pos - options_.skip;
  if (index == reference_->num_rows()) KVANT_TRY(reference_->Append(logits));
  KVANT_TRY(reference_->Read(index, reference_logits_));
  divergence->Add(reference_logits_, logits, tokens_[static_cast<size_t>(pos) + 1]);
  return Status::Ok();
}

Status TextRun::Score(const TaskRun& run, Runner& runner, ReportRow* row) {
  Divergence divergence;
  for (int pos = options_.skip; pos < options_.tokens; pos += options_.scored_batch) {
    const int count = std::min(options_.scored_batch, options_.tokens - pos);
    KVANT_TRY(Feed(run, runner, pos, count, true));
    // Nothing follows the last token.
    for (int i = 0; i < count && pos + i + 1 < options_.tokens; ++i) {
      KVANT_TRY(ScorePosition(runner.Logits(i), pos + i, &divergence));
    }
  }
  row->divergence = divergence.Summarize();
  return Status::Ok();
}

Status TextRun::TimeDecoding(Runner& runner, ReportRow* row) const {
  const Result<double> median = MedianDecodeMs(runner, tokens_, options_.decode_tokens);
  if (!median.ok()) return median.status();
  row->decode_ms = *median;
  return Status::Ok();
}

}  // namespace kvant
