// The forms of a timed model, for people and programs.
#include <nlohmann/json.hpp>

#include "bench_model.h"
#include "eval/table.h"

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> Cells(const BenchModelRow& row) {
  std::vector<std::string> cells = {row.cache, std::to_string(row.length)};
  if (!row.reason.empty()) {
    cells.push_back(row.does_not_fit ? "does not fit" : "not possible");
    cells.resize(8, "-");
    return cells;
  }
  const std::string numbers[] = {StrFormat("%.0f", row.prefill_tokens_per_s),
                                 StrFormat("%.2f", row.decode_ms),
                                 StrFormat("%.2f-%.2f", row.decode_p10_ms, row.decode_p90_ms),
                                 StrFormat("%.1f", row.decode_tokens_per_s),
                                 StrFormat("%.1f", static_cast<double>(row.cache_bytes) / 1e6),
                                 row.x_first > 0 ? StrFormat("%.2f", row.x_first) : "-"};
  cells.insert(cells.end(), std::begin(numbers), std::end(numbers));
  return cells;
}

// What the numbers hold for.
std::string Conditions(const BenchModelOptions& options) {
  const RunnerOptions& o = options.runner;
  const std::string text =
      StrFormat(" Prefill up to so many tokens, in chunks of %d. Decoding: median of %d ", o.batch, options.predict);
  if (o.sequences == 1) return text + "tokens behind so many.\n";
  return text + StrFormat("steps; a step is one token in each of %d sequences, which have so many tokens each.\n",
                          o.sequences);
}

Json RowJson(const BenchModelRow& row) {
  if (!row.reason.empty()) {
    return {{"cache", row.cache}, {"tokens", row.length}, {"fits", !row.does_not_fit}, {"reason", row.reason}};
  }
  Json json = {{"cache", row.cache},
               {"tokens", row.length},
               {"prefill_tokens_per_s", row.prefill_tokens_per_s},
               {"decode_ms", row.decode_ms},
               {"decode_p10_ms", row.decode_p10_ms},
               {"decode_p90_ms", row.decode_p90_ms},
               {"decode_tokens_per_s", row.decode_tokens_per_s},
               {"cache_bytes", row.cache_bytes}};
  if (row.x_first > 0) json["x_first"] = row.x_first;
  return json;
}

}  // namespace

std::string DescribeMachine(const BenchModelOptions& options, const BenchModelReport& report) {
  return StrFormat("%s, %.2f GB; %s, %d threads.", report.model.description.c_str(),
                   static_cast<double>(report.model.file_bytes) / 1e9, report.device.c_str(), options.runner.threads);
}

Json BenchJson(const char* format, const BenchModelOptions& options, const BenchModelReport& report,
               const std::string& kvant_version) {
  const RunnerOptions& o = options.runner;
  return {{"format", format},
          {"format_version", 1},
          {"kvant_version", kvant_version},
          {"model", o.model_path.substr(o.model_path.rfind('/') + 1)},
          {"model_description", report.model.description},
          {"model_bytes", report.model.file_bytes},
          {"environment", {{"device", report.device}, {"system", report.system}, {"threads", o.threads}}},
          {"prompt_batch", o.batch},
          {"sequences", o.sequences},
          {"seed", options.seed}};
}

std::string BenchModelToText(const BenchModelOptions& options, const BenchModelReport& report, bool markdown) {
  Table table({{"cache"},
               {"tokens", true},
               {"prefill tok/s", true},
               {"decode ms", true},
               {"p10-p90", true},
               {"tok/s", true},
               {"cache MB", true},
               {"x " + options.caches.front(), true}});
  for (const BenchModelRow& row : report.rows) table.AddRow(Cells(row));
  std::string text = (markdown ? table.ToMarkdown() : table.ToText()) + "\n";
  for (const BenchModelRow& row : report.rows) {
    if (!row.reason.empty()) text += StrFormat("%s at %d: %s\n", row.cache.c_str(), row.length, row.reason.c_str());
  }
  return text + DescribeMachine(options, report) + Conditions(options);
}

std::string BenchModelToJson(const BenchModelOptions& options, const BenchModelReport& report,
                             const std::string& kvant_version) {
  Json json = BenchJson("kvant-bench-model", options, report, kvant_version);
  json["predict"] = options.predict;
  json["rows"] = Json::array();
  for (const BenchModelRow& row : report.rows) json["rows"].push_back(RowJson(row));
  return json.dump(2) + "\n";
}

}  // namespace kvant
