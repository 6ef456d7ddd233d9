#include "report/stacked_bars.h"

#include <algorithm>
#include <numeric>

#include "kvant/status.h"

namespace kvant {
namespace {

constexpr double kRowInFonts = 2.0;
constexpr double kFootInFonts = 3.4;

std::string Part(size_t i) { return "part s" + std::to_string(i % kMostSeries); }

double Sum(const StackedBar& bar) { return std::accumulate(bar.parts.begin(), bar.parts.end(), 0.0); }

double StackedBarsHeight(const StackedBars& bars, double font) {
  return static_cast<double>(bars.bars.size()) * kRowInFonts * font + kFootInFonts * font + 4;
}

std::string Fitted(const std::string& name, double width, const PlotSize& size) {
  if (size.TextWidth(name) <= width) return name;
  std::string cut = name;
  while (!cut.empty() && size.TextWidth(cut) + size.font > width) {
    do cut.pop_back();
    while (!cut.empty() && (cut.back() & 0xC0) == 0x80);
  }
  if (!cut.empty() && (cut.back() & 0xC0) == 0xC0) cut.pop_back();  // a lead byte without its character
  return cut + "\u2026";
}

}  // namespace

std::string DrawStackedBars(const StackedBars& bars, const PlotSize& given) {
  const PlotSize size = {given.width, StackedBarsHeight(bars, given.font), given.font};
  double names = 0;
  std::vector<double> sums;
  for (const StackedBar& bar : bars.bars) {
    names = std::max(names, size.TextWidth(bar.name));
    sums.push_back(Sum(bar));
  }
  names = std::min(names, size.width * 0.36);
  const double row = kRowInFonts * size.font;
  const double bottom = row * static_cast<double>(bars.bars.size()) + 4;
  const double number = size.TextWidth("00.00 ");
  const Axis x(sums, false, names + size.font, size.width - number, /*from_zero=*/true);
  Svg svg(size, bars.label);
  for (const double tick : x.Ticks(static_cast<int>((size.width - names) / (4 * size.font)))) {
    svg.Line(x(tick), 0, x(tick), bottom, "grid");
    svg.Text(x(tick), bottom + 1.3 * size.font, Anchor::kMiddle, ShortNumber(tick), "tick");
  }
  for (size_t b = 0; b < bars.bars.size(); ++b) {
    const double top = static_cast<double>(b) * row + 3;
    svg.Text(names + 0.6 * size.font, top + 0.7 * row, Anchor::kEnd, Fitted(bars.bars[b].name, names, size));
    double from = 0;
    for (size_t p = 0; p < bars.bars[b].parts.size(); ++p) {
      const double part = bars.bars[b].parts[p];
      if (part <= 0) continue;
      svg.Rect({x(from), top, x(from + part), top + row - 5}, Part(p),
               StrFormat("%s: %s %.3f", bars.bars[b].name.c_str(), bars.parts[p].c_str(), part));
      from += part;
    }
    svg.Text(x(from) + 5, top + 0.7 * row, Anchor::kStart, StrFormat("%.2f", from), "tick");
  }
  svg.Text((names + size.width) / 2, size.height - 0.5 * size.font, Anchor::kMiddle, bars.x_name);
  return std::move(svg).Finish();
}

std::string PartLegend(const std::vector<std::string>& parts) {
  std::string html = "<ul class=\"legend\">\n";
  for (size_t i = 0; i < parts.size(); ++i) {
    html += "<li><svg aria-hidden=\"true\" width=\"14\" height=\"14\"><rect width=\"14\" height=\"14\" class=\"" +
            Part(i) + "\"/></svg> " + EscapeHtml(parts[i]) + "</li>\n";
  }
  return html + "</ul>\n";
}

}  // namespace kvant
