// KL divergence of caches on one text, against fp16. The reference's logits are computed once.
//
// A run is that of `kvant eval` without needles and timing: a part of the text that is not scored, in large chunks, then
// the rest in chunks of a page, since the rows of the chunk at hand are exact in every cache.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/evaluate.h"
#include "eval/logit_file.h"
#include "tune/journal.h"

namespace kvant {

struct KlMeterOptions {
  std::string model_path = {};
  int tokens = 1536;  ///< of the text, BOS included
  int skip = 512;     ///< of them not scored, 1 .. tokens - 2
  int batch = 512;
  int scored_batch = kTokensPerPage;
  std::string device = "auto";  ///< RunnerOptions::device
  int threads = 2;
  std::shared_ptr<const Calibration> maybe_calibration = nullptr;
  std::string key = {};  ///< of the journal: all that the result depends on beside the options above and the cache
};

class KlMeter {
 public:
  /// `progress` gets the cache and the tokens that are through it. `tokens`: the text's, at least options.tokens.
  /// `journal` outlives the meter.
  KlMeter(const KlMeterOptions& options, std::vector<int> tokens, OpenRunner open, EvaluateProgress progress,
          Journal* journal);

  /// From the journal, else measured and kept there. Errors: those of opening and running the model.
  Result<Measurement> Measure(const std::string& cache);
  /// Is it in the journal?
  bool Knows(const std::string& cache) const { return journal_->Find(KeyOf(cache)).has_value(); }

  const KlMeterOptions& options() const { return options_; }
  std::span<const int> tokens() const { return tokens_; }
  int num_runs() const { return num_runs_; }  ///< caches that went through the model, the reference apart

 private:
  std::string KeyOf(const std::string& cache) const;
  Status MakeReference();
  /// Feeds the text; `row` gets each scored position and its logits.
  Result<std::unique_ptr<Runner>> Feed(const std::string& cache,
                                       const std::function<Status(int64_t, std::span<const float>)>& row) const;

  const KlMeterOptions options_;
  const std::vector<int> tokens_;
  const OpenRunner open_;
  const EvaluateProgress progress_;
  Journal* const journal_;
  std::optional<LogitFile> reference_;  ///< row i: position skip + i
  int num_runs_ = 0;
};

}  // namespace kvant
