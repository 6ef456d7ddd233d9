#include "report/svg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "report/heat_map.h"
#include "report/pareto_plot.h"

namespace kvant {
namespace {

TEST(AxisTest, LinearTicksAreRound) {
  const Axis axis({1.9, 8.5}, false, 0, 100);
  EXPECT_THAT(axis.Ticks(8), testing::ElementsAre(2, 3, 4, 5, 6, 7, 8));
  EXPECT_LT(axis(1.9), axis(8.5));
  EXPECT_GT(axis(1.9), 0);
  EXPECT_LT(axis(8.5), 100);
}

TEST(AxisTest, LogarithmicTicksAreDecadesAndTheirParts) {
  EXPECT_THAT(Axis({0.001, 0.02}, true, 100, 0).Ticks(10),
              testing::ElementsAre(testing::DoubleNear(0.001, 1e-9), testing::DoubleNear(0.002, 1e-9),
                                   testing::DoubleNear(0.005, 1e-9), testing::DoubleNear(0.01, 1e-9),
                                   testing::DoubleNear(0.02, 1e-9)));
  const std::vector<double> wide = Axis({1e-8, 1}, true, 0, 100).Ticks(5);
  EXPECT_LE(wide.size(), 6u);
  EXPECT_GE(wide.size(), 3u);
}

TEST(AxisTest, SurvivesOddValues) {
  EXPECT_FALSE(Axis({}, true, 0, 1).Ticks(5).empty());
  EXPECT_FALSE(Axis({3}, false, 0, 1).Ticks(5).empty());
  EXPECT_FALSE(Axis({0, -1}, true, 0, 1).Has(0));
  EXPECT_EQ(Axis({0, 4}, false, 10, 20, true)(0), 10);
  for (const auto& values : {std::vector<double>{1e17, 1e17 + 16}, {1e300, -1e300}, {5e-324, 1e308}, {1e308}}) {
    for (const bool log : {false, true}) {
      const std::vector<double> ticks = Axis(values, log, 0, 100).Ticks(8);
      EXPECT_LE(ticks.size(), 17u);
      EXPECT_TRUE(std::ranges::is_sorted(ticks));
    }
  }
}

TEST(SvgTest, NumbersAreShort) {
  EXPECT_EQ(ShortNumber(0.001), "0.001");
  EXPECT_EQ(ShortNumber(2e-5), "2e-5");
  EXPECT_EQ(ShortNumber(16384), "16384");
  EXPECT_EQ(ShortNumber(-0.0), "0");
}

TEST(HeatMapTest, ColoursRunFromDarkToLight) {
  EXPECT_EQ(HeatColor(0), "#00224e");
  EXPECT_EQ(HeatColor(1), "#fee838");
  EXPECT_EQ(HeatColor(-5), HeatColor(0));
  EXPECT_EQ(HeatColor(7), HeatColor(1));
}

TEST(HeatMapTest, ManyColumnsBecomeBands) {
  HeatMap map{.label = "bits", .rows = {"K", "V"}, .cells = {{}, {}}};
  for (int i = 0; i < 80; ++i) {
    map.columns.push_back(std::to_string(i));
    for (auto& row : map.cells) row.push_back({.text = "3.25", .share = 0.5});
  }
  const std::string narrow = DrawHeatMap(map, {340, 0, 11});
  const std::string wide = DrawHeatMap(map, {820, 0, 13});
  const auto height = [](const std::string& svg) { return std::stod(svg.substr(svg.find(" height=\"") + 9)); };
  EXPECT_GT(height(narrow), height(wide));
  EXPECT_THAT(narrow, testing::HasSubstr(">79</text>"));
}

// ---- labels of the Pareto plot

TEST(ParetoTest, BestPointsAreThoseThatNothingBeats) {
  std::vector<ParetoPoint> points = {{.label = "a", .bits = 2, .kl = 0.1},
                                     {.label = "b", .bits = 3, .kl = 0.2},
                                     {.label = "c", .bits = 4, .kl = 0.01},
                                     {.label = "d", .bits = 4, .kl = 0.02}};
  MarkBest(&points);
  EXPECT_TRUE(points[0].best && points[2].best);
  EXPECT_FALSE(points[1].best || points[3].best);
}

TEST(ParetoTest, LongSchemesAreShortened) {
  EXPECT_EQ(ShortLabel("kv4", 18), "kv4");
  EXPECT_EQ(ShortLabel("k=int:bits=4,group=32 v=int:bits=2,group=32 sink=4 recent=0", 30), "k=int:4 v=int:2");
  EXPECT_EQ(ShortLabel("decoquant:bits=2.75,gauge=klt", 18), "decoquant:2.75");
  EXPECT_EQ(ShortLabel("a-file-with-a-very-long-name.json", 10), "a-file-wit\u2026");
}

class ParetoLabels : public testing::TestWithParam<int> {};

TEST_P(ParetoLabels, DoNotCollide) {
  const PlotSize size = {820, 460, 13};
  const Box area = PlotArea(size);
  std::vector<ParetoPoint> points;
  std::vector<std::pair<double, double>> at;
  std::vector<Box> marks;
  uint32_t state = 1;
  const auto random = [&] { return static_cast<double>((state = state * 1664525u + 1013904223u) >> 8) / (1 << 24); };
  for (int i = 0; i < GetParam(); ++i) {
    points.push_back({.label = "decoquant:bits=" + std::to_string(i), .number = i, .best = i % 3 == 0});
    at.emplace_back(area.left + 100 + 300 * random(), area.top + 60 + 200 * random());
    marks.push_back({at.back().first - 6, at.back().second - 6, at.back().first + 6, at.back().second + 6});
  }
  int placed = 0;
  std::vector<Box> taken = marks;
  for (const PlacedLabel& label : PlaceLabels(points, at, marks, area, size)) {
    if (label.text.empty()) continue;
    ++placed;
    EXPECT_TRUE(area.Contains(label.box));
    for (const Box& box : taken) EXPECT_FALSE(box.Overlaps(label.box)) << label.text;
    taken.push_back(label.box);
  }
  EXPECT_GE(placed, std::min(GetParam(), 20));
}

INSTANTIATE_TEST_SUITE_P(Counts, ParetoLabels, testing::Values(1, 8, 24, 60));

}  // namespace
}  // namespace kvant
