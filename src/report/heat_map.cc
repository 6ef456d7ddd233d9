#include "report/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kvant/status.h"

namespace kvant {
namespace {

// The scale cividis at 0, 1/4, ... 1: its lightness rises evenly. J. Nunez et al., Optimizing colormaps, 2018.
constexpr std::array<std::array<double, 3>, 5> kScale = {
    {{0, 34, 78}, {65, 77, 107}, {124, 123, 120}, {187, 174, 106}, {254, 232, 56}}};
constexpr double kLightShare = 0.45;  // from here on text is black
constexpr double kMostCell = 64;
constexpr double kLeastCellInFonts = 2.6;

/// How the columns are laid out.
struct Layout {
  double left, cell_width, cell_height, band_height;
  size_t per_band;
};

Layout LayoutOf(const HeatMap& map, double width, double font) {
  const PlotSize size{width, 0, font};
  double names = 0;
  for (const std::string& row : map.rows) names = std::max(names, size.TextWidth(row));
  const double left = names + 2.4 * font;
  size_t longest = 3;
  for (const auto& row : map.cells) {
    for (const HeatCell& cell : row) longest = std::max(longest, cell.text.size());
  }
  const double least = std::max(kLeastCellInFonts * font, size.TextWidth(std::string(longest, '0')) + 4);
  const size_t columns = std::max<size_t>(1, map.columns.size());
  const size_t fit = std::max<size_t>(1, static_cast<size_t>((width - left) / least));
  const size_t bands = (columns + fit - 1) / fit;
  const size_t per_band = (columns + bands - 1) / bands;
  const double cell = std::min(kMostCell, (width - left) / static_cast<double>(per_band));
  const double height = 2.1 * font;
  return {left, cell, height, static_cast<double>(map.rows.size()) * height + 2.4 * font, per_band};
}

double HeatMapHeight(const HeatMap& map, double width, double font) {
  const Layout layout = LayoutOf(map, width, font);
  const size_t bands = (map.columns.size() + layout.per_band - 1) / layout.per_band;
  return static_cast<double>(bands) * layout.band_height + 0.4 * font;
}

}  // namespace

std::string HeatColor(double share) {
  const double place = (share > 0 ? std::min(share, 1.0) : 0.0) * (kScale.size() - 1);
  const size_t i = std::min(static_cast<size_t>(place), kScale.size() - 2);
  const double t = place - static_cast<double>(i);
  std::string color = "#";
  for (size_t c = 0; c < 3; ++c) {
    color +=
        StrFormat("%02x", static_cast<unsigned>(std::lround(kScale[i][c] + t * (kScale[i + 1][c] - kScale[i][c]))));
  }
  return color;
}

std::string DrawHeatMap(const HeatMap& map, const PlotSize& size) {
  const Layout layout = LayoutOf(map, size.width, size.font);
  Svg svg({size.width, HeatMapHeight(map, size.width, size.font), size.font}, map.label);
  for (size_t c = 0; c < map.columns.size(); ++c) {
    const size_t band = c / layout.per_band, place = c % layout.per_band;
    const double top = static_cast<double>(band) * layout.band_height;
    const double left = layout.left + static_cast<double>(place) * layout.cell_width;
    if (place == 0) {
      svg.Text(layout.left - 0.4 * size.font, top + 1.2 * size.font, Anchor::kEnd, map.x_name, "tick");
      if (map.rows.size() > 1) {
        svg.UpText(size.font, top + 1.7 * size.font + static_cast<double>(map.rows.size()) * layout.cell_height / 2,
                   map.y_name);
      }
    }
    svg.Text(left + layout.cell_width / 2, top + 1.2 * size.font, Anchor::kMiddle, map.columns[c], "tick");
    for (size_t r = 0; r < map.rows.size(); ++r) {
      const HeatCell& cell = map.cells[r][c];
      const double y = top + 1.7 * size.font + static_cast<double>(r) * layout.cell_height;
      if (place == 0) {
        svg.Text(layout.left - 0.4 * size.font, y + 0.65 * layout.cell_height, Anchor::kEnd, map.rows[r], "tick");
      }
      const Box box = {left, y, left + layout.cell_width - 1, y + layout.cell_height - 1};
      svg.Rect(box, cell.share ? "" : "unknown", cell.tip, cell.share ? HeatColor(*cell.share) : "");
      svg.Text(left + layout.cell_width / 2, y + 0.67 * layout.cell_height, Anchor::kMiddle, cell.text, "",
               cell.share ? (*cell.share >= kLightShare ? "#000" : "#fff") : "");
    }
  }
  return std::move(svg).Finish();
}

}  // namespace kvant
