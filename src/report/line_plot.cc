#include "report/line_plot.h"

#include <algorithm>

namespace kvant {
namespace {

constexpr size_t kMostMarks = 40;  // of a line: more would be a worm

Frame MakeFrame(const LinePlot& plot, const PlotSize& size) {
  std::vector<double> xs, ys;
  for (const PlotSeries& series : plot.series) {
    for (const auto& [x, y] : series.points) {
      xs.push_back(x);
      ys.push_back(y);
    }
  }
  if (plot.diagonal) {
    xs.insert(xs.end(), ys.begin(), ys.end());
    ys = xs;
  }
  const Box area = PlotArea(size);
  return {area, Axis(xs, plot.log_x, area.left, area.right),
          Axis(ys, plot.log_y, area.bottom, area.top, plot.y_from_zero)};
}

}  // namespace

std::string DrawLinePlot(const LinePlot& plot, const PlotSize& size) {
  const Frame frame = MakeFrame(plot, size);
  Svg svg(size, plot.label);
  DrawFrame(frame, plot.axes, size, &svg);
  if (plot.diagonal) svg.Line(frame.area.left, frame.area.bottom, frame.area.right, frame.area.top, "front");
  for (const PlotSeries& one : plot.series) {
    std::vector<std::pair<double, double>> line;
    for (const auto& [x, y] : one.points) {
      if (frame.x.Has(x) && frame.y.Has(y)) line.emplace_back(frame.x(x), frame.y(y));
    }
    if (plot.lines && line.size() > 1) svg.Path(line, "series s" + std::to_string(one.series % kMostSeries));
    const size_t stride = plot.lines ? line.size() / kMostMarks + 1 : 1;
    for (size_t p = 0; p < line.size(); p += stride) {
      svg.Mark(line[p].first, line[p].second, one.series, true, plot.lines ? one.name : "");
    }
  }
  return std::move(svg).Finish();
}

}  // namespace kvant
