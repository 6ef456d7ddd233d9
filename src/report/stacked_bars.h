// Bars made of parts, one below the other.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "report/svg.h"

namespace kvant {

struct StackedBar {
  std::string name = {};
  std::vector<double> parts = {};  ///< [parts], in their order
};

struct StackedBars {
  std::string label = {};  ///< for those who do not see it
  std::string x_name = {};
  std::vector<std::string> parts = {};  ///< at most kMostSeries
  std::vector<StackedBar> bars = {};
};

/// A drawing of one size, as high as its bars need.
std::string DrawStackedBars(const StackedBars& bars, const PlotSize& size);
/// The parts with their colours.
std::string PartLegend(const std::vector<std::string>& parts);

}  // namespace kvant
