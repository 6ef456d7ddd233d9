#include "report/svg.h"

#include <algorithm>
#include <cmath>

#include "kvant/status.h"

namespace kvant {
namespace {

constexpr double kWideWidth = 880, kNarrowWidth = 340;
constexpr double kWideFont = 13, kNarrowFont = 11;
constexpr double kMarkRadius = 4.5;
constexpr double kLargest = 1e100;   // beyond it axes end
constexpr double kCharWidth = 0.58;  // of the font size, of a usual sans-serif font

std::string P(double value) {  // a coordinate
  constexpr double kFar = 1e5;
  std::string text = StrFormat("%.1f", std::isnan(value) ? 0 : std::clamp(value, -kFar, kFar));
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

std::string Class(const std::string& css) { return css.empty() ? "" : " class=\"" + css + "\""; }
std::string Fill(const std::string& fill) { return fill.empty() ? "" : " fill=\"" + fill + "\""; }

std::string Closed(const std::string& element, const std::string& tip) {
  const std::string name = element.substr(1, element.find(' ') - 1);
  return tip.empty() ? element + "/>\n" : element + "><title>" + EscapeHtml(tip) + "</title></" + name + ">\n";
}

// Circle, square, triangle, diamond, and the same again: with the colour, which of eight.
std::string MarkShape(double x, double y, int series, const std::string& css) {
  constexpr double r = kMarkRadius;
  switch (series % 4) {
    case 0:
      return "<circle cx=\"" + P(x) + "\" cy=\"" + P(y) + "\" r=\"" + P(r) + "\"" + Class(css);
    case 1:
      return "<rect x=\"" + P(x - r) + "\" y=\"" + P(y - r) + "\" width=\"" + P(2 * r) + "\" height=\"" + P(2 * r) +
             "\"" + Class(css);
    case 2:
      return "<path d=\"M" + P(x) + " " + P(y - r - 1) + "L" + P(x + r + 1) + " " + P(y + r) + "L" + P(x - r - 1) +
             " " + P(y + r) + "z\"" + Class(css);
    default:
      return "<path d=\"M" + P(x) + " " + P(y - r - 1) + "L" + P(x + r + 1) + " " + P(y) + "L" + P(x) + " " +
             P(y + r + 1) + "L" + P(x - r - 1) + " " + P(y) + "z\"" + Class(css);
  }
}

}  // namespace

double PlotSize::TextWidth(std::string_view text) const {
  const auto characters = std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
  return static_cast<double>(characters) * kCharWidth * font;
}

// ---- Svg

Svg::Svg(const PlotSize& size, const std::string& label)
    : body_("<svg role=\"img\" aria-label=\"" + EscapeHtml(label) + "\" viewBox=\"0 0 " + P(size.width) + " " +
            P(size.height) + "\" width=\"" + P(size.width) + "\" height=\"" + P(size.height) + "\" font-size=\"" +
            P(size.font) + "\">\n<title>" + EscapeHtml(label) + "</title>\n") {}

void Svg::Line(double x1, double y1, double x2, double y2, const std::string& css) {
  body_ +=
      "<line x1=\"" + P(x1) + "\" y1=\"" + P(y1) + "\" x2=\"" + P(x2) + "\" y2=\"" + P(y2) + "\"" + Class(css) + "/>\n";
}

void Svg::Path(const std::vector<std::pair<double, double>>& points, const std::string& css) {
  std::string d;
  for (const auto& [x, y] : points) d += (d.empty() ? "M" : "L") + P(x) + " " + P(y);
  body_ += "<path fill=\"none\" d=\"" + d + "\"" + Class(css) + "/>\n";
}

void Svg::Rect(const Box& box, const std::string& css, const std::string& tip, const std::string& fill) {
  body_ += Closed("<rect x=\"" + P(box.left) + "\" y=\"" + P(box.top) + "\" width=\"" + P(box.right - box.left) +
                      "\" height=\"" + P(box.bottom - box.top) + "\"" + Class(css) + Fill(fill),
                  tip);
}

void Svg::Mark(double x, double y, int series, bool filled, const std::string& tip) {
  body_ +=
      Closed(MarkShape(x, y, series, "mark s" + std::to_string(series % kMostSeries) + (filled ? "" : " hollow")), tip);
}

void Svg::Text(double x, double y, Anchor anchor, const std::string& text, const std::string& css,
               const std::string& fill) {
  const char* name = anchor == Anchor::kStart ? "" : anchor == Anchor::kMiddle ? "middle" : "end";
  const std::string where = *name == '\0' ? "" : std::string(" text-anchor=\"") + name + "\"";
  body_ += "<text x=\"" + P(x) + "\" y=\"" + P(y) + "\"" + where + Class(css) + Fill(fill) + ">" + EscapeHtml(text) +
           "</text>\n";
}

void Svg::UpText(double x, double y, const std::string& text) {
  body_ += "<text text-anchor=\"middle\" transform=\"translate(" + P(x) + " " + P(y) + ") rotate(-90)\">" +
           EscapeHtml(text) + "</text>\n";
}

std::string Svg::Finish() && { return std::move(body_) + "</svg>\n"; }

// ---- Axis

Axis::Axis(const std::vector<double>& values, bool log, double from, double to, bool from_zero)
    : log_(log), from_(from), to_(to) {
  constexpr double kMargin = 0.06;  // of the range, on both sides
  bool any = false;
  for (double value : values) {
    if (!Has(value)) continue;
    value = std::clamp(value, log ? 1 / kLargest : -kLargest, kLargest);
    low_ = any ? std::min(low_, value) : value;
    high_ = any ? std::max(high_, value) : value;
    any = true;
  }
  if (!any) low_ = log ? 0.1 : 0, high_ = 1;
  if (log_) {
    const double room = std::max(0.15, kMargin * std::log10(high_ / low_));
    low_ *= std::pow(10, -room);
    high_ *= std::pow(10, room);
    return;
  }
  if (from_zero) low_ = std::min(0.0, low_);
  const double least = 1e-9 * std::max(std::abs(low_), std::abs(high_));  // or ticks would not be numbers of their own
  const double room = std::max(high_ > low_ ? kMargin * (high_ - low_) : 0.5, least);
  if (!from_zero || low_ < 0) low_ -= room;
  high_ += room;
}

double Axis::operator()(double value) const {
  const double share =
      log_ ? std::log(std::max(value, low_) / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
  return from_ + share * (to_ - from_);
}

std::vector<double> Axis::Ticks(int most) const {
  std::vector<double> ticks;
  if (log_) {
    const int first = static_cast<int>(std::floor(std::log10(low_))),
              last = static_cast<int>(std::ceil(std::log10(high_)));
    const int stride = (last - first) / most + 1;
    const bool fine = 3 * (last - first) <= most + 3;
    for (int decade = first; decade <= last; decade += stride) {
      for (const double step : {1.0, 2.0, 5.0}) {
        const double tick = step * std::pow(10, decade);
        if ((step == 1 || fine) && tick >= low_ && tick <= high_) ticks.push_back(tick);
      }
    }
    return ticks;
  }
  const double rough = (high_ - low_) / most;
  const double unit = std::pow(10, std::floor(std::log10(rough)));
  const double step = unit * (rough <= unit ? 1 : rough <= 2 * unit ? 2 : rough <= 5 * unit ? 5 : 10);
  const double first = std::ceil(low_ / step) * step;
  for (int i = 0; i <= 2 * most && first + i * step <= high_; ++i) ticks.push_back(first + i * step);
  return ticks;
}

std::string ShortNumber(double value) {
  if (std::abs(value) >= 1e4 && std::abs(value) < 1e9) return StrFormat("%.0f", value);
  std::string text = StrFormat("%.4g", value);
  const size_t exponent = text.find('e');
  if (exponent != std::string::npos && exponent + 2 < text.size() && text[exponent + 2] == '0')
    text.erase(exponent + 2, 1);
  return text == "-0" ? "0" : text;
}

// ---- frames and figures

Box PlotArea(const PlotSize& size) {
  return {.left = 5.6 * size.font,
          .top = 0.8 * size.font,
          .right = size.width - 0.8 * size.font,
          .bottom = size.height - 3.4 * size.font};
}

void DrawFrame(const Frame& frame, const FrameText& text, const PlotSize& size, Svg* svg) {
  const Box& a = frame.area;
  double free_from = 0;
  for (double tick : frame.x.Ticks(static_cast<int>((a.right - a.left) / (4.5 * size.font)))) {
    const double x = frame.x(tick);
    svg->Line(x, a.top, x, a.bottom, "grid");
    const std::string label = ShortNumber(tick);
    const double half = size.TextWidth(label) / 2;
    if (x - half < free_from || x + half > size.width) continue;
    svg->Text(x, a.bottom + 1.3 * size.font, Anchor::kMiddle, label, "tick");
    free_from = x + half + 0.5 * size.font;
  }
  double free_above = size.height;
  for (double tick : frame.y.Ticks(static_cast<int>((a.bottom - a.top) / (2.2 * size.font)))) {
    const double y = frame.y(tick);
    svg->Line(a.left, y, a.right, y, "grid");
    if (y > free_above) continue;
    svg->Text(a.left - 0.4 * size.font, y + 0.35 * size.font, Anchor::kEnd, ShortNumber(tick), "tick");
    free_above = y - 1.2 * size.font;
  }
  svg->Line(a.left, a.bottom, a.right, a.bottom, "axis");
  svg->Line(a.left, a.top, a.left, a.bottom, "axis");
  svg->Text((a.left + a.right) / 2, size.height - 0.5 * size.font, Anchor::kMiddle, text.x);
  svg->UpText(size.font, (a.top + a.bottom) / 2, text.y);
}

std::string DrawFigure(const Figure& figure, const std::function<std::string(const PlotSize&)>& draw) {
  const std::string caption = "<figcaption>" + EscapeHtml(figure.caption) + "</figcaption>\n";
  std::string html = "<figure>\n" + (figure.caption_first ? caption : "") + "<div class=\"wide\">\n" +
                     draw({kWideWidth, figure.wide_height, kWideFont}) + "</div>\n<div class=\"narrow\">\n" +
                     draw({kNarrowWidth, figure.narrow_height, kNarrowFont}) + "</div>\n" +
                     (figure.caption_first ? "" : caption);
  if (!figure.table.empty()) {
    html += "<details><summary>The numbers</summary>\n<div class=\"scroll\">\n" + figure.table + "</div></details>\n";
  }
  return html + "</figure>\n";
}

std::string Legend(const std::vector<LegendEntry>& entries) {
  std::string html = "<ul class=\"legend\">\n";
  for (const LegendEntry& entry : entries) {
    const int series = entry.series % kMostSeries;
    html +=
        "<li><svg aria-hidden=\"true\" width=\"28\" height=\"14\"><line x1=\"0\" y1=\"7\" x2=\"28\" y2=\"7\" "
        "class=\"series s" +
        std::to_string(series) + "\"/>" + MarkShape(14, 7, series, "mark s" + std::to_string(series)) + "/></svg> " +
        EscapeHtml(entry.name) + "</li>\n";
  }
  return html + "</ul>\n";
}

}  // namespace kvant
