#include "eval/context_shift.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

ContextShiftOptions Options() { return {.tokens = 200, .keep = 4, .scored = 130}; }

TEST(ContextShiftTest, ComparesWithTheReferenceAfterTheSameShift) {
  const std::string text = SomeText(400);
  const auto task = MakeContextShift(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  EXPECT_EQ(ResultOf(*task, "f16"), (Json{{"kl", 0.0}, {"kl_low", 0.0}, {"kl_high", 0.0}}));
  const Json noise = ResultOf(*task, "noise");
  EXPECT_GT(noise["kl"].get<double>(), 0.005);
  EXPECT_LE(noise["kl_low"].get<double>(), noise["kl"].get<double>());
  EXPECT_GE(noise["kl_high"].get<double>(), noise["kl"].get<double>());
}

TEST(ContextShiftTest, ACacheThatCannotShiftHasNoResult) {
  const std::string text = SomeText(400);
  const auto task = MakeContextShift(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  const Result<Json> result = task->Run(test::RunOf("stuck"));
  EXPECT_TRUE(result.ok() && result->is_null()) << "its Shift was called and refused";
}

TEST(ContextShiftTest, RefusesAShortText) {
  const std::string text = SomeText(329);
  EXPECT_EQ(Prepare(*MakeContextShift(Options(), text, "a.txt")).message(),
            "context-shift: a.txt has 330 tokens, 331 are needed");
}

}  // namespace
}  // namespace kvant
