// The main measurement: one text through the model, with the fp16 cache first and then with others.
//
// A run: the text with its needles goes through the model in chunks. The first `skip` tokens are not scored
// and give the prefill speed. The others are fed in small chunks, because the rows of the chunk at hand are
// exact in every kvant cache: a chunk of one page is as exact as decoding token by token. Then the needles
// are asked, then decoding is timed. docs/evaluation.md has the formulas.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "eval/logit_file.h"
#include "eval/needle.h"
#include "eval/report.h"
#include "eval/task.h"

namespace kvant {

struct TextOptions {
  std::string name = "text";  ///< of the text, for messages and the report
  int tokens = 4096;          ///< of the text with needles, BOS included
  int skip = -1;              ///< unscored tokens, 1 .. tokens - 2; -1: half, which Evaluate fills in
  int batch = 512;
  int scored_batch = kTokensPerPage;
  int needles = 4;
  uint64_t seed = 1;
  int decode_tokens = 32;  ///< 0: decoding is not timed
};

class TextRun {
 public:
  explicit TextRun(const TextOptions& options)
      : options_(options), needles_(MakeNeedles(options.needles, options.seed)) {}

  /// Before any run. Errors: InvalidArgument (context of the model, text too short).
  Status Prepare(const Runner& model, std::string_view text);
  int context_tokens() const { return options_.tokens + std::max(kNeedleReserveTokens, options_.decode_tokens); }

  /// Fills what `row` says of the text: all but the names. The reference has to run first; a second run of it measures the
  /// same again. `run.progress` gets tokens of options.tokens.
  Status Run(const TaskRun& run, ReportRow* row);
  bool has_reference() const { return reference_ != nullptr; }

 private:
  Status Prefill(const TaskRun& run, Runner& runner, ReportRow* row) const;
  Status Score(const TaskRun& run, Runner& runner, ReportRow* row);
  Status ScorePosition(std::span<const float> logits, int pos, Divergence* divergence);
  Status TimeDecoding(Runner& runner, ReportRow* row) const;
  Status Feed(const TaskRun& run, Runner& runner, int pos, int count, bool all_logits) const;

  const TextOptions options_;
  const std::vector<Needle> needles_;
  std::vector<int> tokens_;
  std::unique_ptr<LogitFile> reference_;  ///< row i: position skip + i
  std::vector<float> reference_logits_;   ///< one row of it
};

/// What TextRun::Run fills, as it is kept for later runs.
nlohmann::json StoreText(const ReportRow& row);
/// False when `stored` is not what StoreText makes; `row` is then as before.
bool RestoreText(const nlohmann::json& stored, ReportRow* row);

}  // namespace kvant
