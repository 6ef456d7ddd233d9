// The forms of what fits, for people and programs.
#include <nlohmann/json.hpp>

#include "eval/table.h"
#include "model_fit.h"

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

double Gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

std::vector<std::string> Cells(const FitRow& row) {
  if (!row.reason.empty()) return {row.cache, "does not fit", "-", "-", "-"};
  return {row.cache, (row.is_whole_context ? "all " : "") + std::to_string(row.tokens),
          StrFormat("%.3f", Gigabytes(row.used_bytes)), StrFormat("%.2f", row.bytes_per_token / 1e3),
          row.x_first > 0 ? StrFormat("%.2f", row.x_first) : "-"};
}

Json RowJson(const FitRow& row) {
  if (!row.reason.empty()) return {{"cache", row.cache}, {"tokens", 0}, {"reason", row.reason}};
  Json json = {{"cache", row.cache},
               {"tokens", row.tokens},
               {"is_whole_context", row.is_whole_context},
               {"used_bytes", row.used_bytes},
               {"bytes_per_token", row.bytes_per_token}};
  if (row.x_first > 0) json["x_first"] = row.x_first;
  return json;
}

}  // namespace

std::string FitToText(const BenchModelOptions& options, const BenchModelReport& machine, int64_t limit_bytes,
                      const std::vector<FitRow>& rows, bool markdown) {
  Table table(
      {{"cache"}, {"tokens", true}, {"GB used", true}, {"KB per token", true}, {"x " + options.caches.front(), true}});
  for (const FitRow& row : rows) table.AddRow(Cells(row));
  std::string text = (markdown ? table.ToMarkdown() : table.ToText()) + "\n";
  for (const FitRow& row : rows) {
    if (!row.reason.empty()) text += row.cache + ": " + row.reason + "\n";
  }
  text += DescribeMachine(options, machine);
  if (options.runner.sequences > 1) text += StrFormat(" Tokens: of each of %d sequences.", options.runner.sequences);
  return text + StrFormat(
                    " Longest context within %.3f GB for weights, cache and buffers; each was filled in chunks of %d, "
                    "and the memory "
                    "measured.\n",
                    Gigabytes(limit_bytes), options.runner.batch);
}

std::string FitToJson(const BenchModelOptions& options, const BenchModelReport& machine, int64_t limit_bytes,
                      const std::vector<FitRow>& rows, const std::string& kvant_version) {
  Json json = BenchJson("kvant-bench-fit", options, machine, kvant_version);
  json["limit_bytes"] = limit_bytes;
  json["rows"] = Json::array();
  for (const FitRow& row : rows) json["rows"].push_back(RowJson(row));
  return json.dump(2) + "\n";
}

}  // namespace kvant
