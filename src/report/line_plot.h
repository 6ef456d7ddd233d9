// Lines or points over two axes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "report/svg.h"

namespace kvant {

struct PlotSeries {
  std::string name = {};
  int series = 0;                                      ///< colour and mark
  std::vector<std::pair<double, double>> points = {};  ///< x rising
};

struct LinePlot {
  std::string label = {};  ///< for those who do not see it
  FrameText axes = {};
  std::vector<PlotSeries> series = {};  ///< at most kMostSeries
  bool log_x = false, log_y = false;
  bool y_from_zero = false;
  bool lines = true;      ///< between the points of a series
  bool diagonal = false;  ///< where x = y; both axes then cover the same values
};

/// A drawing of one size. Values that a logarithmic axis cannot show are left out.
std::string DrawLinePlot(const LinePlot& plot, const PlotSize& size);

}  // namespace kvant
