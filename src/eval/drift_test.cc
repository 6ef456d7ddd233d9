#include "eval/drift.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

DriftOptions Options() { return {.prompts = 3, .prompt_tokens = 70, .tokens = 40}; }

TEST(DriftTest, TheReferenceAgreesWithItself) {
  const std::string text = SomeText(300);
  const auto task = MakeDrift(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  const Json result = ResultOf(*task, "f16");
  EXPECT_EQ(result["tokens"], 40);
  EXPECT_EQ(result["prompts"], 3);
  EXPECT_EQ(result["first_difference"], 40.0);
  EXPECT_EQ(result["agreement"], 1.0);
  EXPECT_EQ(task->Show(result), "40 (100 %)");
}

TEST(DriftTest, OthersPartFromIt) {
  const std::string text = SomeText(300);
  const auto task = MakeDrift(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  ResultOf(*task, "f16");
  const Json result = ResultOf(*task, "noise");
  EXPECT_LT(result["first_difference"].get<double>(), 30.0);
  // What stands before the first difference agrees, and by chance some behind it.
  EXPECT_GE(result["agreement"].get<double>(), result["first_difference"].get<double>() / 40);
  EXPECT_LT(result["agreement"].get<double>(), 0.9);
  EXPECT_EQ(ResultOf(*task, "noise"), result);
}

TEST(DriftTest, RefusesAShortText) {
  const std::string text = SomeText(200);
  EXPECT_EQ(Prepare(*MakeDrift(Options(), text, "a.txt")).message(),
            "drift: a.txt has 201 tokens, 3 prompts of 70 need 210");
}

}  // namespace
}  // namespace kvant
