// A grid of numbers, each written into its cell and shown as its colour.
#pragma once

#include <string>
#include <vector>

#include "report/report_input.h"
#include "report/svg.h"

namespace kvant {

struct HeatCell {
  std::string text = {};
  std::string tip = {};
  MaybeNumber share = {};  ///< 0..1, the colour; none: not known
};

struct HeatMap {
  std::string label = {};  ///< for those who do not see it
  std::string x_name = {}, y_name = {};
  std::vector<std::string> columns = {}, rows = {};
  std::vector<std::vector<HeatCell>> cells = {};  ///< [rows][columns]
};

/// A drawing of one size, as high as it needs: many columns are broken into bands below each other.
std::string DrawHeatMap(const HeatMap& map, const PlotSize& size);

/// "#rrggbb" of 0..1, dark blue to yellow: seen alike with all kinds of colour vision, and printed in grey.
std::string HeatColor(double share);

}  // namespace kvant
