#include "eval/speed.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

TEST(SpeedTest, MeasuresAtEachLength) {
  const std::string text = SomeText(100);  // repeated
  const auto task = MakeSpeed({.lengths = {64, 300}, .decode_tokens = 3}, text);
  ASSERT_TRUE(Prepare(*task).ok());
  const Json result = ResultOf(*task, "noise");
  ASSERT_EQ(result.size(), 2u);
  EXPECT_EQ(result[0]["tokens"], 64);
  EXPECT_EQ(result[1]["tokens"], 300);
  for (const Json& point : result) {
    EXPECT_GT(point["decode_ms"].get<double>(), 0);
    EXPECT_GT(point["prefill_tokens_per_s"].get<double>(), 0);
  }
}

TEST(SpeedTest, ShowsTheTimes) {
  const auto task = MakeSpeed({.lengths = {64}}, "x");
  EXPECT_EQ(task->Show(Json{{{"decode_ms", 1.234}}, {{"decode_ms", 2.0}}}), "1.23, 2.00");
}

TEST(SpeedTest, RefusesLengthsBeyondTheModel) {
  EXPECT_EQ(Prepare(*MakeSpeed({.lengths = {8192}, .decode_tokens = 1}, "x")).message(),
            "speed needs a context of 8193 tokens; the model's is 8192");
}

}  // namespace
}  // namespace kvant
