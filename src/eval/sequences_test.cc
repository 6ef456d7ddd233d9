#include "eval/sequences.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

SequencesOptions Options() { return {.sequences = 3, .prompt_tokens = 100, .tokens = 20}; }

TEST(SequencesTest, IndependentSequencesGiveWhatEachGivesAlone) {
  const std::string text = SomeText(600);
  const auto task = MakeSequences(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  for (const char* cache : {"f16", "noise"}) {
    EXPECT_EQ(ResultOf(*task, cache), (Json{{"right", 57}, {"asked", 57}})) << cache;
  }
}

TEST(SequencesTest, SeesWhenTheyDisturbEachOther) {
  const std::string text = SomeText(600);
  const auto task = MakeSequences(Options(), text, "a.txt");
  ASSERT_TRUE(Prepare(*task).ok());
  const Json result = ResultOf(*task, "leaky");
  EXPECT_LT(result["right"].get<int>(), 40);
  EXPECT_EQ(result["asked"], 57);
}

TEST(SequencesTest, RefusesAShortText) {
  const std::string text = SomeText(500);
  EXPECT_EQ(Prepare(*MakeSequences(Options(), text, "a.txt")).message(),
            "sequences: a.txt has 501 tokens, 513 are needed");
}

}  // namespace
}  // namespace kvant
