#include <algorithm>

#include "report/pareto_plot.h"
#include "report/report_sections.h"

namespace kvant {
namespace {

constexpr const char* kReference = "f16";

// Series of the plot of one file; of several files each is a series.
enum Series { kOurs, kHosts, kPlans };
constexpr const char* kSeriesNames[] = {"kvant", "llama.cpp's own", "plans"};

int KindOf(const EvalRow& row) {
  if (row.cache.ends_with(".json")) return kPlans;
  return row.scheme.empty() || row.cache.starts_with("llama:") ? kHosts : kOurs;
}

// "plans/a.json" -> "a.json".
std::string LabelOf(const EvalRow& row) {
  return KindOf(row) == kPlans ? row.cache.substr(row.cache.rfind('/') + 1) : row.cache;
}

std::vector<ParetoPoint> Points(const std::vector<EvalInput>& evals) {
  std::vector<ParetoPoint> points;
  for (size_t file = 0; file < evals.size(); ++file) {
    for (size_t i = 0; i < evals[file].rows.size(); ++i) {
      const EvalRow& row = evals[file].rows[i];
      if (!row.bits || row.kl.value_or(0) <= 0) continue;
      points.push_back({.label = LabelOf(row),
                        .number = static_cast<int>(i),
                        .series = evals.size() > 1 ? static_cast<int>(file) : KindOf(row),
                        .bits = *row.bits,
                        .kl = *row.kl,
                        .low = row.kl_low,
                        .high = row.kl_high});
    }
  }
  MarkBest(&points);
  return points;
}

std::string PointLegend(const std::vector<EvalInput>& evals, const std::vector<ParetoPoint>& points) {
  std::vector<LegendEntry> entries;
  for (int series = 0; series < kMostSeries; ++series) {
    const auto uses = [&](const ParetoPoint& p) { return p.series == series; };
    if (std::ranges::none_of(points, uses)) continue;
    entries.push_back({evals.size() > 1 ? evals[static_cast<size_t>(series)].name : kSeriesNames[series], series});
  }
  return entries.size() > 1 ? Legend(entries) : "";
}

std::string IntervalText(const EvalRow& row) {
  if (!row.kl_low || !row.kl_high || row.kl.value_or(0) == 0) return "-";
  return StrFormat("%.5f-%.5f", *row.kl_low, *row.kl_high);
}

std::string NeedleText(const EvalInput& eval, const EvalRow& row) {
  if (!row.needles_right || eval.needles.value_or(0) <= 0) return "-";
  return StrFormat("%.0f/%.0f", *row.needles_right, *eval.needles);
}

MaybeNumber Ratio(MaybeNumber a, MaybeNumber b) {
  return a && b && *a > 0 && *b > 0 ? MaybeNumber(*a / *b) : std::nullopt;
}

MaybeNumber Scaled(MaybeNumber value, double by) { return value ? MaybeNumber(*value * by) : std::nullopt; }

// Columns in which something stands.
Table WithoutEmptyColumns(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> kept;
  std::vector<Column> headers;
  for (size_t c = 0; c < columns.size(); ++c) {
    if (std::ranges::all_of(rows, [&](const auto& row) { return row[c] == "-"; })) continue;
    kept.push_back(c);
    headers.push_back(columns[c]);
  }
  Table table(headers);
  for (const auto& row : rows) {
    std::vector<std::string> cells;
    for (const size_t c : kept) cells.push_back(row[c]);
    table.AddRow(std::move(cells));
  }
  return table;
}

Table QualityTable(const EvalInput& eval) {
  const std::vector<Column> columns = {{"#", true},         {"cache"},          {"bits", true},
                                       {"x smaller", true}, {"KL, nats", true}, {"95 % interval", true},
                                       {"top-1", true},     {"needles", true},  {"cache MB", true},
                                       {"decode ms", true}, {"x fp16", true},   {"prefill tok/s", true},
                                       {"KL p99", true},    {"ppl", true}};
  std::vector<std::vector<std::string>> rows;
  MaybeNumber reference_ms;
  for (const EvalRow& row : eval.rows) {
    if (row.cache == kReference) reference_ms = row.decode_ms;
  }
  for (size_t i = 0; i < eval.rows.size(); ++i) {
    const EvalRow& row = eval.rows[i];
    const MaybeNumber decode_ms = row.decode_ms.value_or(0) > 0 ? row.decode_ms : std::nullopt;
    rows.push_back({std::to_string(i), row.cache, NumberOr("%.2f", row.bits), NumberOr("%.2f", Ratio(16.0, row.bits)),
                    NumberOr("%.5f", row.kl), IntervalText(row), NumberOr("%.1f %%", Scaled(row.top1, 100)),
                    NeedleText(eval, row), NumberOr("%.1f", Scaled(row.cache_bytes, 1e-6)), NumberOr("%.2f", decode_ms),
                    NumberOr("%.2f", Ratio(reference_ms, decode_ms)), NumberOr("%.0f", row.prefill_tokens_per_s),
                    NumberOr("%.4f", row.kl_p99), NumberOr("%.3f", row.perplexity)});
  }
  return WithoutEmptyColumns(columns, rows);
}

std::string BestText(const EvalRow& row) {
  std::string text =
      row.cache + StrFormat(": %.2f bits, 1/%.1f of fp16, KL %.5f", *row.bits, 16 / std::max(*row.bits, 1e-9), *row.kl);
  if (row.top1) text += StrFormat(", top-1 %.1f %%", 100 * *row.top1);
  return text;
}

// The rows that no other beats, from small to large.
std::string BestList(const EvalInput& eval) {
  std::vector<ParetoPoint> points = Points({eval});
  std::erase_if(points, [](const ParetoPoint& p) { return !p.best; });
  std::ranges::stable_sort(points, {}, &ParetoPoint::bits);
  if (points.empty()) return "";
  std::string html = "<p>No other cache of this file has both fewer bits and less KL than:</p>\n<ul>\n";
  for (const ParetoPoint& p : points) {
    html += "<li>" + EscapeHtml(BestText(eval.rows[static_cast<size_t>(p.number)])) + "</li>\n";
  }
  return html + "</ul>\n";
}

}  // namespace

std::string QualitySection(const std::vector<EvalInput>& evals) {
  if (evals.empty()) return "";
  std::string body;
  const std::vector<ParetoPoint> points = Points(evals);
  if (!points.empty()) {
    body += PointLegend(evals, points);
    body += DrawFigure(
        {.caption = "KL divergence from the fp16 cache (lower is better, logarithmic) against everything that "
                    "the cache holds, per value. Bars: 95 % interval. Filled marks on the dashed line: no "
                    "other cache is both smaller and closer. f16 itself has KL 0 and is not shown.",
         .wide_height = 460,
         .narrow_height = 420},
        [&](const PlotSize& size) { return ParetoPlot(points, "KL against effective bits", size); });
  }
  for (const EvalInput& eval : evals) {
    if (!eval.rows.empty()) body += FileHeading(evals, eval) + BestList(eval) + Scrolled(QualityTable(eval));
  }
  return Section("Quality against memory", body);
}

}  // namespace kvant
