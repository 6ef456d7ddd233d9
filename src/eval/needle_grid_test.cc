#include "eval/needle_grid.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

NeedleGridOptions Options() { return {.lengths = {600, 1500}, .depths = 3, .needles = 2, .seed = 1}; }

TEST(NeedleGridTest, FillsTheGrid) {
  const std::string text = SomeText(2000);
  const auto task = MakeNeedleGrid(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  const Json result = ResultOf(*task, "noise");
  EXPECT_EQ(result["lengths"], (Json{600, 1500}));
  ASSERT_EQ(result["depths"].size(), 3u);
  EXPECT_NEAR(result["depths"][0].get<double>(), 1.0 / 6, 1e-12);
  EXPECT_EQ(result["asked"], (Json{{2, 2, 2}, {2, 2, 2}}));
  EXPECT_EQ(result["right"], result["asked"]);
  EXPECT_EQ(task->Show(result), "12/12");
}

TEST(NeedleGridTest, CountsWhatIsNotFound) {
  const std::string text = SomeText(2000);
  const auto task = MakeNeedleGrid(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  const Json result = ResultOf(*task, "blind");
  EXPECT_EQ(result["right"], (Json{{0, 0, 0}, {0, 0, 0}}));
  EXPECT_EQ(task->Show(result), "0/12");
}

TEST(NeedleGridTest, RefusesLengthsThatDoNotFit) {
  const std::string text = SomeText(1000);
  const auto short_text = MakeNeedleGrid(Options(), text, "a.txt");
  EXPECT_NE(Prepare(*short_text).message().find("needle grid: a.txt: 1001 tokens are too few for 1500"),
            std::string::npos);
  const auto small_model = MakeNeedleGrid({.lengths = {FakeRunner::kContextTrain}}, text, "a.txt");
  EXPECT_EQ(Prepare(*small_model).message(), "needle grid needs a context of 8288 tokens; the model's is 8192");
}

TEST(NeedleGridTest, OptionsTellGridsApart) {
  const std::string text = SomeText(10), other = SomeText(11);
  const Json options = MakeNeedleGrid(Options(), text, "a.txt")->options();
  EXPECT_EQ(options, MakeNeedleGrid(Options(), text, "b.txt")->options()) << "names do not matter";
  EXPECT_NE(options, MakeNeedleGrid(Options(), other, "a.txt")->options());
  NeedleGridOptions more = Options();
  more.needles = 3;
  EXPECT_NE(options, MakeNeedleGrid(more, text, "a.txt")->options());
}

}  // namespace
}  // namespace kvant
