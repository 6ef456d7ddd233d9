#include <algorithm>
#include <cmath>

#include "report/heat_map.h"
#include "report/line_plot.h"
#include "report/pareto_plot.h"
#include "report/report_sections.h"

namespace kvant {
namespace {

constexpr double kNormal95 = 1.96;

enum Series { kPlan, kUniform };

HeatMap BitsMap(const PlanInput& plan) {
  HeatMap map{.label = "Bits by layer, K and V", .x_name = "layer", .rows = {"K", "V"}, .cells = {{}, {}}};
  double low = 1e9, high = 0;
  for (const PlanLayer& layer : plan.layers) {
    for (const PlanChoice* choice : {&layer.key, &layer.value}) {
      if (!choice->bits) continue;
      low = std::min(low, *choice->bits);
      high = std::max(high, *choice->bits);
    }
  }
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    map.columns.push_back(std::to_string(i));
    const PlanChoice* sides[] = {&plan.layers[i].key, &plan.layers[i].value};
    for (size_t side = 0; side < 2; ++side) {
      HeatCell cell{.text = NumberOr("%.3g", sides[side]->bits, "?")};
      cell.tip = StrFormat("layer %zu %s: ", i, map.rows[side].c_str()) + sides[side]->codec;
      if (sides[side]->bits) cell.share = high > low ? (*sides[side]->bits - low) / (high - low) : 0.5;
      map.cells[side].push_back(std::move(cell));
    }
  }
  return map;
}

std::string LayerTable(const PlanInput& plan) {
  Table table({{"layer", true}, {"K codec"}, {"K bits", true}, {"V codec"}, {"V bits", true}});
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const PlanLayer& layer = plan.layers[i];
    table.AddRow({std::to_string(i), layer.key.codec, NumberOr("%.3f", layer.key.bits), layer.value.codec,
                  NumberOr("%.3f", layer.value.bits)});
  }
  return table.ToHtml();
}

std::string BitsFigure(const PlanInput& plan) {
  if (plan.layers.empty()) return "";
  const HeatMap map = BitsMap(plan);
  return "<h3>Bits by layer</h3>\n" +
         DrawFigure(
             {.caption = "Bits per value of each layer's keys and values in sealed pages.", .table = LayerTable(plan)},
             [&](const PlotSize& size) { return DrawHeatMap(map, size); });
}

void AddPoint(const MeasuredCache& cache, Series series, std::vector<ParetoPoint>* points) {
  if (!cache.bits || cache.kl.value_or(0) <= 0) return;
  ParetoPoint point{.label = cache.cache, .number = static_cast<int>(points->size()), .series = series};
  point.bits = *cache.bits;
  point.kl = *cache.kl;
  if (cache.kl_stderr) {
    point.low = point.kl - kNormal95 * *cache.kl_stderr;
    point.high = point.kl + kNormal95 * *cache.kl_stderr;
  }
  points->push_back(point);
}

std::string CompareTable(const std::vector<ParetoPoint>& points) {
  Table table({{"#", true}, {"cache"}, {"bits", true}, {"KL, nats", true}});
  for (const ParetoPoint& p : points) {
    table.AddRow({std::to_string(p.number), p.label, StrFormat("%.3f", p.bits), StrFormat("%.5f", p.kl)});
  }
  return table.ToHtml();
}

std::string CompareFigure(const PlanInput& plan) {
  std::vector<ParetoPoint> points;
  MeasuredCache measured = plan.measured;
  measured.cache = plan.name;
  AddPoint(measured, kPlan, &points);
  for (const MeasuredCache& uniform : plan.uniform) AddPoint(uniform, kUniform, &points);
  if (points.size() < 2) return "";
  MarkBest(&points);
  return "<h3>Against one scheme for all layers</h3>\n" + Legend({{"the plan", kPlan}, {"one scheme", kUniform}}) +
         DrawFigure({.caption = "KL against effective bits, on text that was not used for tuning.",
                     .table = CompareTable(points),
                     .wide_height = 360,
                     .narrow_height = 360},
                    [&](const PlotSize& size) { return ParetoPlot(points, "The plan against uniform schemes", size); });
}

std::string ValidationFigure(const PlanInput& plan) {
  if (plan.validation.empty()) return "";
  LinePlot plot{.label = "Predicted and measured KL", .axes = {"predicted KL, nats", "measured KL, nats"}};
  plot.series = {{.name = "random plans", .series = 0, .points = plan.validation}};
  plot.log_x = plot.log_y = plot.diagonal = true;
  plot.lines = false;
  Table table({{"predicted KL", true}, {"measured KL", true}});
  for (const auto& [predicted, measured] : plan.validation) {
    table.AddRow({StrFormat("%.5f", predicted), StrFormat("%.5f", measured)});
  }
  return "<h3>Predicted against measured</h3>\n" +
         DrawFigure({.caption = "Plans drawn at random, measured; on the dashed line the prediction is exact.",
                     .table = table.ToHtml(),
                     .wide_height = 400},
                    [&](const PlotSize& size) { return DrawLinePlot(plot, size); });
}

// KL of a uniform cache as large as the plan: on the line, in log KL, between the nearest ones below and above.
MaybeNumber UniformKl(const PlanInput& plan) {
  const MeasuredCache *below = nullptr, *above = nullptr;
  for (const MeasuredCache& u : plan.uniform) {
    if (!u.bits || u.kl.value_or(0) <= 0) continue;
    if (*u.bits <= *plan.measured.bits && (below == nullptr || *u.bits > *below->bits)) below = &u;
    if (*u.bits >= *plan.measured.bits && (above == nullptr || *u.bits < *above->bits)) above = &u;
  }
  if (below == nullptr || above == nullptr) return {};
  if (*below->bits == *above->bits) return std::min(*below->kl, *above->kl);
  const double share = (*plan.measured.bits - *below->bits) / (*above->bits - *below->bits);
  return std::exp((1 - share) * std::log(*below->kl) + share * std::log(*above->kl));
}

std::string GainText(const PlanInput& plan) {
  if (!plan.measured.bits || plan.measured.kl.value_or(0) <= 0) return "";
  const MaybeNumber uniform = UniformKl(plan);
  if (!uniform) return "";
  return StrFormat(
      "That is %.2f times the KL of one scheme for all layers at the same size (%.5f, between its neighbours). ",
      *plan.measured.kl / *uniform, *uniform);
}

std::string Summary(const PlanInput& plan) {
  std::string text;
  if (plan.measured.kl && plan.measured.bits) {
    text += StrFormat("Measured: KL %.5f at %.3f bits per value", *plan.measured.kl, *plan.measured.bits);
    text +=
        plan.predicted_kl ? StrFormat(" (predicted for the text it was tuned on: %.5f). ", *plan.predicted_kl) : ". ";
  }
  text += GainText(plan);
  if (plan.expected_gain.value_or(0) > 0)
    text += StrFormat("Gain to expect from these layers: %.3f. ", *plan.expected_gain);
  if (plan.validation_rank_correlation && !plan.validation.empty()) {
    text += StrFormat("Rank correlation of predicted and measured KL: %.3f. ", *plan.validation_rank_correlation);
  }
  if (plan.proxy_rank_correlation) {
    text += StrFormat("Rank correlation of the attention's error with KL: %.3f.", *plan.proxy_rank_correlation);
  }
  return text.empty() ? "" : Paragraph(text);
}

}  // namespace

std::string PlanSection(const PlanInput& plan) {
  return Section("Plan " + plan.name, Summary(plan) + BitsFigure(plan) + CompareFigure(plan) + ValidationFigure(plan));
}

}  // namespace kvant
