// Drawing in SVG, and what all plots share: two sizes, axes with ticks, marks of series.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/table.h"

namespace kvant {

/// Pixels at scale 1. A page holds each figure twice, for wide screens and paper, and for phones.
struct PlotSize {
  double width = 0;
  double height = 0;
  double font = 0;
  double TextWidth(std::string_view text) const;  ///< an estimate, on the safe side
};

/// Pixels.
struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  bool Overlaps(const Box& o) const { return left < o.right && o.left < right && top < o.bottom && o.top < bottom; }
  bool Contains(const Box& o) const { return left <= o.left && top <= o.top && right >= o.right && bottom >= o.bottom; }
};

enum class Anchor { kStart, kMiddle, kEnd };

/// Coordinates in pixels from the top left; colours come from CSS classes.
class Svg {
 public:
  Svg(const PlotSize& size, const std::string& label);
  void Line(double x1, double y1, double x2, double y2, const std::string& css);
  void Path(const std::vector<std::pair<double, double>>& points, const std::string& css);
  /// `tip`: shown when pointed at; may be empty. `fill`: a colour, where no class says it.
  void Rect(const Box& box, const std::string& css, const std::string& tip, const std::string& fill = "");
  /// The shape of series `series`; a hollow one when not `filled`.
  void Mark(double x, double y, int series, bool filled, const std::string& tip);
  void Text(double x, double y, Anchor anchor, const std::string& text, const std::string& css = "",
            const std::string& fill = "");
  /// Turned by 90 degrees, reading upward, centred at (x, y).
  void UpText(double x, double y, const std::string& text);
  std::string Finish() &&;

 private:
  std::string body_;
};

/// Series beyond this are not told apart by colour.
inline constexpr int kMostSeries = 8;

/// Values to pixels.
class Axis {
 public:
  /// Covers `values`; with `log` those that are positive. `from` and `to` in pixels.
  Axis(const std::vector<double>& values, bool log, double from, double to, bool from_zero = false);
  double operator()(double value) const;
  bool Has(double value) const { return !log_ || value > 0; }
  double low() const { return low_; }
  /// At most about `most` of them.
  std::vector<double> Ticks(int most) const;

 private:
  bool log_;
  double low_ = 0, high_ = 1;
  double from_, to_;
};

/// "0.001", "2e-5", "16": short.
std::string ShortNumber(double value);

/// The frame of a plot: axes, grid, labels.
struct Frame {
  Box area;  ///< of the data
  Axis x, y;
};
struct FrameText {
  std::string x = {}, y = {};
};
/// Room for the frame's labels inside `size`.
Box PlotArea(const PlotSize& size);
void DrawFrame(const Frame& frame, const FrameText& text, const PlotSize& size, Svg* svg);

/// <figure> with the drawing in both sizes, a caption and, folded, the same numbers as a table (HTML, may be empty).
struct Figure {
  std::string caption = {};  ///< plain text
  std::string table = {};
  bool caption_first = false;  ///< where it is a name
  double wide_height = 320, narrow_height = 320;
};
std::string DrawFigure(const Figure& figure, const std::function<std::string(const PlotSize&)>& draw);

/// Names of series with their marks.
struct LegendEntry {
  std::string name = {};
  int series = 0;
};
std::string Legend(const std::vector<LegendEntry>& entries);

}  // namespace kvant
