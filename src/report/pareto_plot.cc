#include "report/pareto_plot.h"

#include <algorithm>
#include <numeric>

#include "kvant/status.h"

namespace kvant {
namespace {

constexpr double kMarkHalf = 6;  // of the box that a mark keeps free

/// A place for a label, as steps from the point: in widths of the gap.
struct Place {
  double x, y;
  Anchor anchor;
};
constexpr Place kPlaces[] = {{1, 0.35, Anchor::kStart},  {0.8, -0.6, Anchor::kStart}, {0.8, 1.3, Anchor::kStart},
                             {-1, 0.35, Anchor::kEnd},   {-0.8, -0.6, Anchor::kEnd},  {-0.8, 1.3, Anchor::kEnd},
                             {0, -0.9, Anchor::kMiddle}, {0, 1.7, Anchor::kMiddle}};

std::string Cut(const std::string& text, size_t most) {
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xC0) == 0x80) continue;
    if (++characters > most) return text.substr(0, i) + "\u2026";
  }
  return text;
}

// "k=int:bits=4,group=32" -> "k=int:4".
std::string ShortWord(const std::string& word) {
  constexpr std::string_view kBits = "bits=";
  std::string shorter = word.substr(0, word.find(','));
  const size_t bits = shorter.find(kBits);
  return bits == std::string::npos ? shorter : shorter.erase(bits, kBits.size());
}

Box LabelBox(double x, double y, Anchor anchor, double width, double font) {
  const double left = anchor == Anchor::kStart ? x : anchor == Anchor::kEnd ? x - width : x - width / 2;
  return {left - 1, y - 0.85 * font, left + width + 1, y + 0.25 * font};
}

std::string Tip(const ParetoPoint& p) {
  std::string tip = p.label + StrFormat(": %.3f bits, KL %.3g", p.bits, p.kl);
  if (p.low && p.high) tip += StrFormat(" (%.3g to %.3g)", *p.low, *p.high);
  return tip;
}

void DrawErrorBar(const ParetoPoint& p, const Frame& frame, Svg* svg) {
  if (!p.low || !p.high) return;
  const double x = frame.x(p.bits), top = frame.y(*p.high), bottom = std::min(frame.y(*p.low), frame.area.bottom);
  const std::string css = "series s" + std::to_string(p.series % kMostSeries);
  svg->Line(x, top, x, bottom, css);
  svg->Line(x - 4, top, x + 4, top, css);
  if (*p.low > 0) svg->Line(x - 4, bottom, x + 4, bottom, css);
}

void DrawLabel(const PlacedLabel& label, std::pair<double, double> point, Svg* svg) {
  if (label.text.empty()) return;
  if (label.far) {
    svg->Line(point.first, point.second, std::clamp(point.first, label.box.left, label.box.right),
              std::clamp(point.second, label.box.top, label.box.bottom), "leader");
  }
  svg->Text(label.x, label.y, label.anchor, label.text, "label");
}

void DrawBestLine(const std::vector<ParetoPoint>& points, const Frame& frame, Svg* svg) {
  std::vector<std::pair<double, double>> line;
  for (const ParetoPoint& p : points) {
    if (p.best) line.emplace_back(frame.x(p.bits), frame.y(p.kl));
  }
  std::ranges::sort(line);
  if (line.size() > 1) svg->Path(line, "front");
}

Frame ParetoFrame(const std::vector<ParetoPoint>& points, const PlotSize& size) {
  std::vector<double> bits, kl;
  for (const ParetoPoint& p : points) {
    bits.push_back(p.bits);
    kl.push_back(p.kl);
    if (p.high) kl.push_back(*p.high);
    if (p.low.value_or(0) > p.kl / 10) kl.push_back(*p.low);  // a bar to nearly nothing would flatten the plot
  }
  const Box area = PlotArea(size);
  return {area, Axis(bits, false, area.left, area.right), Axis(kl, true, area.bottom, area.top)};
}

}  // namespace

std::string ShortLabel(const std::string& label, size_t most) {
  if (label.size() <= most) return label;
  std::string shorter;
  for (size_t first = 0, blank = 0; first < label.size(); first = blank + 1) {
    blank = std::min(label.find(' ', first), label.size());
    const std::string word = label.substr(first, blank - first);
    if (word.starts_with("sink=") || word.starts_with("recent=")) continue;
    shorter += (shorter.empty() ? "" : " ") + ShortWord(word);
  }
  return Cut(shorter, most);
}

void MarkBest(std::vector<ParetoPoint>* points) {
  for (ParetoPoint& p : *points) {
    p.best = std::ranges::none_of(*points, [&](const ParetoPoint& o) {
      return o.bits <= p.bits && o.kl <= p.kl && (o.bits < p.bits || o.kl < p.kl);
    });
  }
}

std::vector<PlacedLabel> PlaceLabels(const std::vector<ParetoPoint>& points,
                                     const std::vector<std::pair<double, double>>& at, std::vector<Box> taken,
                                     const Box& area, const PlotSize& size) {
  const size_t most = size.width > 500 ? 30 : 18;
  std::vector<PlacedLabel> labels(points.size());
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return points[a].best && !points[b].best; });
  const auto place = [&](size_t i, const std::string& text) {
    for (const double gap : {8.0, 20.0, 34.0, 50.0}) {
      for (const Place& p : kPlaces) {
        const double x = at[i].first + p.x * gap, y = at[i].second + p.y * gap;
        const Box box = LabelBox(x, y, p.anchor, size.TextWidth(text), size.font);
        if (!area.Contains(box) || std::ranges::any_of(taken, [&](const Box& t) { return t.Overlaps(box); })) continue;
        taken.push_back(box);
        labels[i] = {text, x, y, p.anchor, box, gap > 8};
        return true;
      }
    }
    return false;
  };
  for (const size_t i : order) {
    if (!place(i, ShortLabel(points[i].label, most))) place(i, "#" + std::to_string(points[i].number));
  }
  return labels;
}

std::string ParetoPlot(const std::vector<ParetoPoint>& points, const std::string& label, const PlotSize& size) {
  const Frame frame = ParetoFrame(points, size);
  Svg svg(size, label);
  DrawFrame(frame, {.x = "effective bits per value", .y = "KL, nats per token"}, size, &svg);
  std::vector<std::pair<double, double>> at;
  std::vector<Box> taken;
  for (const ParetoPoint& p : points) {
    at.emplace_back(frame.x(p.bits), frame.y(p.kl));
    const auto [x, y] = at.back();
    taken.push_back({x - kMarkHalf, y - kMarkHalf, x + kMarkHalf, y + kMarkHalf});
    if (p.low && p.high)
      taken.push_back({x - 3, frame.y(*p.high), x + 3, std::min(frame.y(*p.low), frame.area.bottom)});
  }
  DrawBestLine(points, frame, &svg);
  for (const ParetoPoint& p : points) DrawErrorBar(p, frame, &svg);
  const std::vector<PlacedLabel> labels = PlaceLabels(points, at, std::move(taken), frame.area, size);
  for (size_t i = 0; i < points.size(); ++i) DrawLabel(labels[i], at[i], &svg);
  for (size_t i = 0; i < points.size(); ++i) {
    svg.Mark(at[i].first, at[i].second, points[i].series, points[i].best, Tip(points[i]));
  }
  return std::move(svg).Finish();
}

}  // namespace kvant
