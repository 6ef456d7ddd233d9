#include "eval/report.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "base/join.h"
#include "eval/table.h"

namespace kvant {
namespace {

constexpr double kMb = 1e6;
constexpr const char* kNothing = "-";
constexpr int kFormatVersion = 2;  // of the JSON; docs/evaluation.md is its schema

std::string Number(const char* format, double value) { return StrFormat(format, value); }

std::string OrNothing(const char* format, double value) { return value > 0 ? Number(format, value) : kNothing; }

double KindBits(const Footprint& footprint, int kind) {
  return footprint.values ? 8.0 * static_cast<double>(footprint.by_kind[kind]) / static_cast<double>(footprint.values)
                          : 0;
}

// "codes 4.00 + scales 0.50 + exact 0.12": what the effective bits are made of.
std::string Breakdown(const CacheUse& use) {
  const Footprint& footprint = use.footprint;
  std::string text;
  for (int kind = 0; kind < kNumStreamKinds; ++kind) {
    if (footprint.by_kind[kind] == 0) continue;
    text += text.empty() ? "" : " + ";
    text += std::string(StreamKindName(static_cast<StreamKind>(kind))) + Number(" %.3f", KindBits(footprint, kind));
    if (kind == static_cast<int>(StreamKind::kBases)) text += " (" + use.bases + ")";
  }
  return text;
}

std::string Needles(const Report& report, const ReportRow& row) {
  return report.needles ? StrFormat("%d/%d", row.needles_right, report.needles) : kNothing;
}

Table QualityTable(const Report& report) {
  Table table({{"cache"},
               {"bits", true},
               {"KL, nats", true},
               {"+-", true},
               {"top-1", true},
               {"ppl", true},
               {"needles", true},
               {"cache MB", true},
               {"process MB", true},
               {"prefill tok/s", true},
               {"encode", true},
               {"decode ms", true},
               {"x fp16", true}});
  const double fp16_ms = report.rows.empty() ? 0 : report.rows.front().decode_ms;
  for (const ReportRow& row : report.rows) {
    const DivergenceSummary& d = row.divergence;
    table.AddRow({row.cache, Number("%.2f", row.use.footprint.bits_per_value()), Number("%.5f", d.kl),
                  Number("%.5f", d.kl_stderr), Number("%.4f", d.top1), Number("%.3f", d.ppl), Needles(report, row),
                  Number("%.1f", static_cast<double>(row.use.memory_bytes) / kMb),
                  Number("%.1f", static_cast<double>(row.process_bytes) / kMb),
                  Number("%.0f", row.prefill_tokens_per_s), OrNothing("%.1f %%", 100 * row.encode_share),
                  OrNothing("%.2f", row.decode_ms),
                  OrNothing("%.2f", row.decode_ms > 0 ? fp16_ms / row.decode_ms : 0)});
  }
  return table;
}

Table BitsTable(const Report& report) {
  Table table({{"cache"}, {"scheme"}, {"bits per value", true}, {"made of"}});
  for (const ReportRow& row : report.rows) {
    table.AddRow({row.cache, row.scheme.empty() ? kNothing : row.scheme,
                  Number("%.3f", row.use.footprint.bits_per_value()), Breakdown(row.use)});
  }
  return table;
}

Table TaskTable(const Report& report) {
  std::vector<Column> columns = {{"cache"}};
  for (const std::string& column : report.task_columns) columns.push_back({column, true});
  Table table(columns);
  for (const ReportRow& row : report.rows) {
    std::vector<std::string> cells = {row.cache};
    for (const std::string& cell : row.task_cells) cells.push_back(cell.empty() ? kNothing : cell);
    table.AddRow(std::move(cells));
  }
  return table;
}

std::vector<Table> Tables(const Report& report) {
  std::vector<Table> tables = {QualityTable(report), BitsTable(report)};
  if (!report.task_columns.empty()) tables.push_back(TaskTable(report));
  return tables;
}

// "Not measured again (DIR): f16 (text), kv4 (text, drift)"; empty: everything is new.
std::string Earlier(const Report& report) {
  std::string text;
  for (const ReportRow& row : report.rows) {
    if (row.from_earlier.empty()) continue;
    text += (text.empty() ? "" : ", ") + row.cache + " (" + Join(row.from_earlier, std::identity()) + ")";
  }
  return text.empty() ? "" : "Not measured again, from " + report.results_folder + ": " + text + "\n";
}

std::string Title(const Report& report) {
  return StrFormat("%s on %s: %d tokens, %d scored, %d needles, %d threads", report.model.c_str(), report.text.c_str(),
                   report.tokens, report.tokens - report.skip - 1, report.needles, report.threads);
}

constexpr const char* kLegend =
    "KL, top-1: against the fp16 cache of the same model; +-: standard error of KL. Bits: everything that the cache "
    "holds, per value.\n"
    "Prefill: the unscored tokens; encode: share of its time. Decode: median, with the whole text in the cache; "
    "x fp16: how much faster.";

constexpr const char* kTaskLegend =
    "Needles, words, questions, calls: right of asked. Drift: greedy tokens before the first that is not fp16's, and "
    "how "
    "many of all agree. Sequences: tokens that are the same as alone.\n"
    "KL after shift: against fp16 after the same. Attention error: of a layer's output, mean over layers. "
    "docs/evaluation.md "
    "has the formulas.";

std::string Legend(const Report& report) {
  return kLegend + (report.task_columns.empty() ? std::string() : std::string("\n") + kTaskLegend);
}

nlohmann::ordered_json MemoryJson(const CacheUse& use) {
  nlohmann::ordered_json by_kind;
  for (int kind = 0; kind < kNumStreamKinds; ++kind) {
    by_kind[std::string(StreamKindName(static_cast<StreamKind>(kind)))] = KindBits(use.footprint, kind);
  }
  return {{"bits_per_value", use.footprint.bits_per_value()},
          {"bits_by_kind", by_kind},
          {"cache_bytes", use.memory_bytes},
          {"held_bytes", use.footprint.total()},
          {"fp16_bytes", use.fp16_bytes}};
}

nlohmann::ordered_json RowJson(const ReportRow& row) {
  const DivergenceSummary& d = row.divergence;
  nlohmann::ordered_json json;
  json["cache"] = row.cache;
  json["scheme"] = row.scheme;
  json["positions"] = d.positions;
  json["kl"] = d.kl;
  json["kl_stderr"] = d.kl_stderr;
  json["kl_low"] = d.kl_interval.low;
  json["kl_high"] = d.kl_interval.high;
  json["kl_p99"] = d.kl_p99;
  json["top1"] = d.top1;
  json["perplexity"] = d.ppl;
  json["perplexity_fp16"] = d.ppl_reference;
  json["kl_by_position"] = {{"window", kDivergenceWindow}, {"kl", d.kl_by_window}};
  json["bases"] = row.use.bases;
  json["needles_right"] = row.needles_right;
  json["memory"] = MemoryJson(row.use);
  json["measured"] = {{"prefill_tokens_per_s", row.prefill_tokens_per_s},
                      {"encode_share", row.encode_share},
                      {"decode_ms", row.decode_ms},
                      {"process_bytes", row.process_bytes},
                      {"from_earlier", row.from_earlier}};
  json.update(nlohmann::ordered_json(row.results), /*merge_objects=*/true);
  return json;
}

}  // namespace

std::string ReportToText(const Report& report) {
  std::string text = Title(report) + "\n\n";
  for (const Table& table : Tables(report)) text += table.ToText() + "\n";
  return text + Legend(report) + "\n" + Earlier(report);
}

std::string ReportToMarkdown(const Report& report) {
  std::string text = Title(report) + "\n\n";
  for (const Table& table : Tables(report)) text += table.ToMarkdown() + "\n";
  return text + Legend(report) + "\n" + Earlier(report);
}

std::string ReportToJson(const Report& report) {
  nlohmann::ordered_json json;
  json["format"] = "kvant-eval";
  json["format_version"] = kFormatVersion;
  json["kvant_version"] = report.kvant_version;
  json["model_hash"] = report.model_hash;
  json["environment"] = {{"cpu", report.environment.cpu},
                         {"device", report.environment.device},
                         {"threads", report.threads},
                         {"system", report.environment.system}};
  json["model"] = report.model;
  json["text"] = report.text;
  json["tokens"] = report.tokens;
  json["skip"] = report.skip;
  json["batch"] = report.batch;
  json["scored_batch"] = report.scored_batch;
  json["needles"] = report.needles;
  json["seed"] = report.seed;
  json["threads"] = report.threads;
  for (const ReportRow& row : report.rows) json["rows"].push_back(RowJson(row));
  // Names of files need not be UTF-8.
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace kvant
