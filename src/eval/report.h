// What an evaluation found, and its forms for people and programs.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/divergence.h"
#include "eval/environment.h"
#include "llama/runner.h"

namespace kvant {

/// One cache on one text.
struct ReportRow {
  std::string cache;   ///< as given: "kv4", "llama:q8_0"
  std::string scheme;  ///< in full, as Scheme::ToString; empty for the host's own cache types
  DivergenceSummary divergence;
  int needles_right = 0;
  CacheUse use;                     ///< when the text is in the cache
  double prefill_tokens_per_s = 0;  ///< over the unscored tokens
  double encode_share = 0;          ///< of that time, spent encoding; 0: a cache of the host, which does not say
  double decode_ms = 0;             ///< median per token behind the whole text; 0: not measured
  int64_t process_bytes = 0;        ///< growth of the process's private memory, weights and buffers included
  nlohmann::json results = nlohmann::json::object();  ///< of tasks, at their places in a row of the JSON
  std::vector<std::string> task_cells;                ///< the same for tables [task_columns]; empty: not measurable
  std::vector<std::string> from_earlier;              ///< "text" and the tasks that were not measured in this run
};

/// The reference (fp16) is the first row.
struct Report {
  std::string kvant_version;
  std::string model_hash;  ///< Runner::HashModel; empty: not known
  Environment environment;
  std::string model;  ///< file name without its folder
  std::string text;   ///< file name, or "stdin"
  int tokens = 0;
  int skip = 0;          ///< unscored tokens at the start
  int batch = 0;         ///< tokens per chunk, unscored part
  int scored_batch = 0;  ///< the same, scored part
  int needles = 0;
  uint64_t seed = 0;
  int threads = 0;
  std::string results_folder;             ///< where earlier results come from; empty: nowhere
  std::vector<std::string> task_columns;  ///< headers
  std::vector<ReportRow> rows;
};

/// Aligned columns for a terminal, the bits by kind below.
std::string ReportToText(const Report& report);
std::string ReportToMarkdown(const Report& report);
/// All numbers. What depends on the clock or the system stands under "measured"; everything else is the same
/// in every run.
std::string ReportToJson(const Report& report);

}  // namespace kvant
