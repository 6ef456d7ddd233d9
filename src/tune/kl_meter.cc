#include "tune/kl_meter.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/check.h"
#include "eval/divergence.h"

namespace kvant {
namespace {

constexpr const char* kReference = "f16";

}  // namespace

KlMeter::KlMeter(const KlMeterOptions& options, std::vector<int> tokens, OpenRunner open, EvaluateProgress progress,
                 Journal* journal)
    : options_(options),
      tokens_(std::move(tokens)),
      open_(std::move(open)),
      progress_(std::move(progress)),
      journal_(journal) {
  KVANT_CHECK(std::ssize(tokens_) >= options_.tokens && options_.skip >= 1 && options_.skip <= options_.tokens - 2);
}

std::string KlMeter::KeyOf(const std::string& cache) const {
  return options_.key +
         StrFormat(" %d-%d/%d/%d ", options_.skip, options_.tokens, options_.batch, options_.scored_batch) + cache;
}

Result<std::unique_ptr<Runner>> KlMeter::Feed(const std::string& cache,
                                              const std::function<Status(int64_t, std::span<const float>)>& row) const {
  Result<std::unique_ptr<Runner>> opened = open_({.model_path = options_.model_path,
                                                  .cache = cache,
                                                  .device = options_.device,
                                                  .context = options_.tokens,
                                                  .batch = std::max(options_.batch, options_.scored_batch),
                                                  .threads = options_.threads,
                                                  .maybe_calibration = options_.maybe_calibration});
  if (!opened.ok()) return opened;
  Runner& runner = **opened;
  const std::span<const int> all(tokens_);
  for (int pos = 0; pos < options_.tokens;) {
    const bool scored = pos >= options_.skip;
    const int count =
        scored ? std::min(options_.scored_batch, options_.tokens - pos) : std::min(options_.batch, options_.skip - pos);
    KVANT_TRY(runner.Decode(all.subspan(static_cast<size_t>(pos), static_cast<size_t>(count)), scored));
    for (int i = 0; scored && i < count; ++i) KVANT_TRY(row(pos + i, runner.Logits(i)));
    pos += count;
    progress_(cache, pos, options_.tokens);
  }
  return opened;
}

Status KlMeter::MakeReference() {
  if (reference_) return Status::Ok();
  std::optional<LogitFile> file;
  const auto runner = Feed(kReference, [&](int64_t, std::span<const float> logits) {
    if (!file) {
      Result<LogitFile> made = LogitFile::Create(static_cast<int>(logits.size()));
      if (!made.ok()) return made.status();
      file.emplace(std::move(*made));
    }
    return file->Append(logits);
  });
  if (!runner.ok()) return runner.status();
  reference_.emplace(std::move(*file));
  return Status::Ok();
}

Result<Measurement> KlMeter::Measure(const std::string& cache) {
  const std::string key = KeyOf(cache);
  if (const std::optional<Measurement> known = journal_->Find(key)) return *known;
  KVANT_TRY(MakeReference());
  Divergence divergence;
  std::vector<float> reference;
  const auto runner = Feed(cache, [&](int64_t pos, std::span<const float> logits) {
    if (pos + 1 == options_.tokens) return Status::Ok();  // nothing follows the last token
    reference.resize(logits.size());
    KVANT_TRY(reference_->Read(pos - options_.skip, reference));
    divergence.Add(reference, logits, tokens_[static_cast<size_t>(pos) + 1]);
    return Status::Ok();
  });
  if (!runner.ok()) return runner.status();
  ++num_runs_;
  const DivergenceSummary summary = divergence.Summarize();
  const Footprint footprint = (*runner)->cache_use().footprint;
  const Measurement measurement = {.kl = summary.kl,
                                   .kl_stderr = summary.kl_stderr,
                                   .bytes = static_cast<int64_t>(footprint.total()),
                                   .bits_per_value = footprint.bits_per_value()};
  KVANT_TRY(journal_->Add(key, measurement));
  return measurement;
}

}  // namespace kvant
