#include <algorithm>
#include <functional>

#include "report/line_plot.h"
#include "report/report_sections.h"
#include "report/stacked_bars.h"

namespace kvant {
namespace {

// ---- bytes

// Kinds in the order in which they first appear.
std::vector<std::string> KindsOf(const EvalInput& eval) {
  std::vector<std::string> kinds;
  for (const EvalRow& row : eval.rows) {
    for (const auto& [kind, bits] : row.bits_by_kind) {
      if (std::ranges::find(kinds, kind) == kinds.end() && kinds.size() < kMostSeries) kinds.push_back(kind);
    }
  }
  return kinds;
}

StackedBars BytesOf(const EvalInput& eval) {
  StackedBars bars{.label = "Bits per value by kind", .x_name = "bits per value", .parts = KindsOf(eval)};
  for (const EvalRow& row : eval.rows) {
    if (row.bits_by_kind.empty()) continue;
    StackedBar bar{.name = row.cache, .parts = std::vector<double>(bars.parts.size())};
    for (const auto& [kind, bits] : row.bits_by_kind) {
      const auto part = std::ranges::find(bars.parts, kind) - bars.parts.begin();
      if (part < std::ssize(bars.parts)) bar.parts[static_cast<size_t>(part)] = bits;
    }
    bars.bars.push_back(std::move(bar));
  }
  return bars;
}

std::string BarTable(const StackedBars& bars) {
  std::vector<Column> columns = {{"cache"}};
  for (const std::string& part : bars.parts) columns.push_back({part, true});
  Table table(columns);
  for (const StackedBar& bar : bars.bars) {
    std::vector<std::string> cells = {bar.name};
    for (const double part : bar.parts) cells.push_back(StrFormat("%.4f", part));
    table.AddRow(std::move(cells));
  }
  return table.ToHtml();
}

// ---- lines by row

using ReadLine = std::function<std::vector<std::pair<double, double>>(const EvalRow& row)>;

std::vector<PlotSeries> Lines(const EvalInput& eval, const ReadLine& read) {
  std::vector<PlotSeries> lines;
  for (size_t i = 0; i < eval.rows.size(); ++i) {
    PlotSeries line{.name = eval.rows[i].cache, .series = SeriesOf(i), .points = read(eval.rows[i])};
    if (!line.points.empty() && line.series >= 0) lines.push_back(std::move(line));
  }
  return lines;
}

std::string LinesLegend(const std::vector<PlotSeries>& lines) {
  std::vector<LegendEntry> entries;
  for (const PlotSeries& line : lines) entries.push_back({line.name, line.series});
  return Legend(entries);
}

// The x values of all lines, one row each.
std::string LineTable(const std::vector<PlotSeries>& lines, const std::string& x_name, const char* y_format) {
  std::vector<Column> columns = {{x_name, true}};
  std::vector<double> xs;
  for (const PlotSeries& line : lines) {
    columns.push_back({line.name, true});
    for (const auto& point : line.points) xs.push_back(point.first);
  }
  std::ranges::sort(xs);
  xs.erase(std::unique(xs.begin(), xs.end()), xs.end());
  Table table(columns);
  for (const double x : xs) {
    std::vector<std::string> cells = {ShortNumber(x)};
    for (const PlotSeries& line : lines) {
      const auto at = std::ranges::find(line.points, x, &std::pair<double, double>::first);
      cells.push_back(at == line.points.end() ? "-" : StrFormat(y_format, at->second));
    }
    table.AddRow(std::move(cells));
  }
  return table.ToHtml();
}

std::string LineFigure(LinePlot plot, const std::string& caption, const char* y_format) {
  if (plot.series.empty()) return "";
  return LinesLegend(plot.series) +
         DrawFigure({.caption = caption, .table = LineTable(plot.series, plot.axes.x, y_format)},
                    [&](const PlotSize& size) { return DrawLinePlot(plot, size); });
}

// Means of neighbours, at most `most`: what follows is a curve, not a fur.
std::vector<std::pair<double, double>> Thinned(const std::vector<std::pair<double, double>>& points, size_t most) {
  const size_t group = (points.size() + most - 1) / std::max<size_t>(most, 1);
  if (group <= 1) return points;
  std::vector<std::pair<double, double>> thin;
  for (size_t first = 0; first < points.size(); first += group) {
    const size_t last = std::min(points.size(), first + group);
    double x = 0, y = 0;
    for (size_t i = first; i < last; ++i) {
      x += points[i].first;
      y += points[i].second;
    }
    thin.emplace_back(x / static_cast<double>(last - first), y / static_cast<double>(last - first));
  }
  return thin;
}

constexpr size_t kMostPositions = 64;

std::vector<PlotSeries> PositionLines(const EvalInput& eval) {
  return Lines(eval, [&](const EvalRow& row) {
    std::vector<std::pair<double, double>> points;
    for (size_t i = 0; i < row.kl_by_position.size(); ++i) {
      const double middle = (static_cast<double>(i) + 0.5) * row.window;
      if (row.kl.value_or(1) > 0) points.emplace_back(eval.skip.value_or(0) + middle, row.kl_by_position[i]);
    }
    return Thinned(points, kMostPositions);
  });
}

std::vector<PlotSeries> LayerLines(const EvalInput& eval) {
  return Lines(eval, [](const EvalRow& row) {
    std::vector<std::pair<double, double>> points;
    for (size_t i = 0; i < row.attention_error_by_layer.size(); ++i) {
      points.emplace_back(static_cast<double>(i), row.attention_error_by_layer[i]);
    }
    const bool any = std::ranges::any_of(points, [](const auto& p) { return p.second > 0; });
    return any ? points : std::vector<std::pair<double, double>>{};
  });
}

std::vector<PlotSeries> SpeedLines(const EvalInput& eval, MaybeNumber ContextSpeed::*number) {
  return Lines(eval, [&](const EvalRow& row) {
    std::vector<std::pair<double, double>> points;
    for (const ContextSpeed& speed : row.speed) {
      if ((speed.*number).value_or(0) > 0) points.emplace_back(speed.tokens, *(speed.*number));
    }
    std::ranges::sort(points);
    return points;
  });
}

}  // namespace

std::string BytesSection(const std::vector<EvalInput>& evals) {
  std::string body;
  for (const EvalInput& eval : evals) {
    const StackedBars bars = BytesOf(eval);
    if (bars.bars.empty()) continue;
    body += FileHeading(evals, eval) + PartLegend(bars.parts);
    body += DrawFigure(
        {.caption = "What the cache holds, in bits per value of K and V. exact: rows at 16 bits (first rows, "
                    "recent window, open pages), which weigh less the longer the text.",
         .table = BarTable(bars)},
        [&](const PlotSize& size) { return DrawStackedBars(bars, size); });
  }
  return Section("What the bits are made of", body);
}

std::string PlaceSection(const std::vector<EvalInput>& evals) {
  std::string body;
  for (const EvalInput& eval : evals) {
    std::string figures = LineFigure(
        {.label = "KL by position", .axes = {"token", "KL, nats"}, .series = PositionLines(eval), .log_y = true},
        "KL along the text, means of neighbouring positions: a cache that loses track rises to the right.", "%.6f");
    figures += LineFigure({.label = "Attention error by layer",
                           .axes = {"layer", "relative error"},
                           .series = LayerLines(eval),
                           .y_from_zero = true},
                          "Relative error of each layer's attention output.", "%.5f");
    if (!figures.empty()) body += FileHeading(evals, eval) + figures;
  }
  return Section("Where the error is", body);
}

std::string SpeedSection(const std::vector<EvalInput>& evals) {
  std::string body;
  for (const EvalInput& eval : evals) {
    std::string figures =
        LineFigure({.label = "Decode time by context",
                    .axes = {"tokens in the cache", "ms per token"},
                    .series = SpeedLines(eval, &ContextSpeed::decode_ms),
                    .y_from_zero = true},
                   "Time of one generated token, with so many tokens in the cache. Lower is better.", "%.3f");
    figures += LineFigure({.label = "Prefill speed by context",
                           .axes = {"tokens in the cache", "tokens per second"},
                           .series = SpeedLines(eval, &ContextSpeed::prefill_tokens_per_s),
                           .y_from_zero = true},
                          "Speed of reading a prompt. Higher is better.", "%.1f");
    if (!figures.empty()) body += FileHeading(evals, eval) + figures;
  }
  return Section("Speed against context", body);
}

}  // namespace kvant
