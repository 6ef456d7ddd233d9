// Compares caches on one text: the fp16 cache runs first and is the reference, then each of the others.
//
// A run: the text with its needles goes through the model in chunks. The first `skip` tokens are not scored
// and give the prefill speed. The others are fed in small chunks, because the rows of the chunk at hand are
// exact in every kvant cache: a chunk of one page is as exact as decoding token by token. Then the needles
// are asked, then decoding is timed. docs/evaluation.md has the formulas.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/report.h"
#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

struct EvaluateOptions {
  std::string model_path;
  std::string model_hash;           ///< Runner::HashModel, for the report; empty: not known
  std::string kvant_version;        ///< for the report
  std::vector<std::string> caches;  ///< besides "f16", which always runs
  std::string text_name = "text";   ///< for messages and the report
  int tokens = 4096;                ///< of the text with needles, BOS included
  int skip = -1;                    ///< unscored tokens, 1 .. tokens - 2; -1: half
  int batch = 512;
  int scored_batch = kTokensPerPage;
  int needles = 4;
  uint64_t seed = 1;
  int decode_tokens = 32;  ///< 0: decoding is not timed
  int threads = 2;
  size_t memory_limit_bytes = 0;  ///< of the cache; 0: none
  std::shared_ptr<const Calibration> maybe_calibration = nullptr;
};

using OpenRunner = std::function<Result<std::unique_ptr<Runner>>(const RunnerOptions&)>;
/// `stage` names the cache at work; `done` of `total` tokens are through it.
using EvaluateProgress = std::function<void(std::string_view stage, int64_t done, int64_t total)>;

/// Opens every cache once before any work, so that a wrong option ends the evaluation at its start.
/// Errors: InvalidArgument (options, text too short), and those of `open` and of Runner::Decode.
Result<Report> Evaluate(const EvaluateOptions& options, std::string_view text, const OpenRunner& open,
                        const EvaluateProgress& progress);

}  // namespace kvant
