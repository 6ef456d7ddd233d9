// Times a whole model with several caches: prefill and decoding at several lengths of the context.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"
#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

struct BenchModelOptions {
  RunnerOptions runner;  ///< cache and context are chosen here
  std::vector<std::string> caches;
  std::vector<int> lengths;  ///< tokens of each sequence, rising
  int predict = 64;          ///< tokens to time decoding with, at each length
  uint32_t seed = 1;         ///< of the tokens, which are random: which are fed makes no difference to the time
};

/// One cache at one length.
struct BenchModelRow {
  std::string cache = {};
  int length = 0;                   ///< tokens of each sequence
  double prefill_tokens_per_s = 0;  ///< over all tokens up to this length, all sequences, one after the other
  double decode_ms = 0;             ///< median of one step: one token of each sequence, together
  double decode_p10_ms = 0, decode_p90_ms = 0;
  double decode_tokens_per_s = 0;  ///< of all sequences, by the median
  size_t cache_bytes = 0;          ///< held for the tokens of this length
  double x_first = 0;              ///< speed of decoding relative to the first cache at this length; 0: that has none
  bool does_not_fit = false;
  std::string reason = {};  ///< why there are no numbers; empty: there are
};

using BenchModelProgress = std::function<void(std::string_view cache, int64_t done, int64_t total)>;

/// Rows in the order of caches, then lengths. A cache fills up once, in rising order of the lengths; at each, what was
/// decoded is forgotten again. What memory does not suffice for, and what a cache cannot do, says so in its row, and the others
/// go on. Errors: InvalidArgument as from opening a model.
Result<std::vector<BenchModelRow>> BenchModel(const BenchModelOptions& options, const OpenRunner& open,
                                              const BenchModelProgress& progress);

/// Opens the model with one cache, feeds options.lengths.back() tokens to each sequence and decodes options.predict more. `progress`
/// is called between chunks and at the end, with the model open. Errors: those of the runner.
Status FillModel(const BenchModelOptions& options, const std::string& cache, const OpenRunner& open,
                 const BenchModelProgress& progress);

/// Whether an error means that memory did not suffice. libllama says that in its log alone.
bool DoesNotFit(const Status& status);

/// Errors: InvalidArgument naming --at, --predict or --sequences when the model's context or libllama's counters are too small.
Status CheckLengths(const BenchModelOptions& options, const ModelInfo& model);

// ---- The forms of the result ----

struct BenchModelReport {
  ModelInfo model = {};
  std::string device = {};  ///< name of what the model ran on
  std::string system = {};
  std::vector<BenchModelRow> rows = {};
};

/// "llama 8B Q8_0, 8.54 GB; AMD EPYC, 2 threads."
std::string DescribeMachine(const BenchModelOptions& options, const BenchModelReport& report);
/// What both forms of the verb write to their JSON before the rows.
nlohmann::ordered_json BenchJson(const char* format, const BenchModelOptions& options, const BenchModelReport& report,
                                 const std::string& kvant_version);

/// The table, with the reasons of empty rows and a line about the machine below.
std::string BenchModelToText(const BenchModelOptions& options, const BenchModelReport& report, bool markdown);
std::string BenchModelToJson(const BenchModelOptions& options, const BenchModelReport& report,
                             const std::string& kvant_version);

}  // namespace kvant
