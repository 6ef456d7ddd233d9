// KL against effective bits: which cache says most for its memory.
#pragma once

#include <string>
#include <vector>

#include "report/report_input.h"
#include "report/svg.h"

namespace kvant {

struct ParetoPoint {
  std::string label = {};
  int number = 0;  ///< what the table calls it, for points whose label finds no room
  int series = 0;
  double bits = 0;
  double kl = 0;  ///< nats, > 0
  MaybeNumber low = {}, high = {};
  bool best = false;  ///< nothing has both fewer bits and less KL
};

/// Sets `best`.
void MarkBest(std::vector<ParetoPoint>* points);

/// A drawing of one size. REQUIRES: !points.empty()
std::string ParetoPlot(const std::vector<ParetoPoint>& points, const std::string& label, const PlotSize& size);

/// A label of at most `most` characters: of a long scheme the codecs with their first option each, and what fits of that.
/// "k=int:bits=4,group=32 v=int:bits=2,group=32 sink=4" -> "k=int:4 v=int:2".
std::string ShortLabel(const std::string& label, size_t most);

/// Where the label of each point goes: no two overlap each other or a mark. Given boxes of marks and error bars.
struct PlacedLabel {
  std::string text = {};  ///< empty: found no room
  double x = 0, y = 0;    ///< of the baseline
  Anchor anchor = Anchor::kStart;
  Box box = {};
  bool far = false;  ///< needs a line to its point
};
std::vector<PlacedLabel> PlaceLabels(const std::vector<ParetoPoint>& points,
                                     const std::vector<std::pair<double, double>>& at, std::vector<Box> taken,
                                     const Box& area, const PlotSize& size);

}  // namespace kvant
