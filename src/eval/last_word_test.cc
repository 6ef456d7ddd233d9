#include "eval/last_word.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

constexpr const char* kKnown =
    "The secret number of Kalo is 48213. Question: What is the secret number of Kalo? Answer: 48213";

TEST(LastWordTest, AsksForTheLastWordOfEachPassage) {
  const std::string text = std::string(kKnown) + ".\n\n  " + kKnown + "  \nNobody could tell that it ends thus\n";
  auto task = MakeLastWord(text, "a.txt");
  ASSERT_TRUE(task.ok()) << task.status().message();
  ASSERT_TRUE(Prepare(**task).ok());
  const Json result = ResultOf(**task, "f16");
  EXPECT_EQ(result["right"], 2);
  EXPECT_EQ(result["asked"], 3);
  EXPECT_LT(result["low"].get<double>(), 2.0 / 3);
  EXPECT_GT(result["high"].get<double>(), 2.0 / 3);
  EXPECT_EQ((*task)->Show(result), "2/3");
  EXPECT_EQ(ResultOf(**task, "blind")["right"], 0);
}

// The first bytes of the answer alone are not the word.
TEST(LastWordTest, EveryTokenCounts) {
  const auto task = MakeLastWord(std::string(kKnown) + "9", "a.txt");
  ASSERT_TRUE(task.ok() && Prepare(**task).ok());
  EXPECT_EQ(ResultOf(**task, "f16")["right"], 0);
}

TEST(LastWordTest, RefusesWhatIsNoPassage) {
  EXPECT_EQ(MakeLastWord("two words\n\nword.\n", "a.txt").status().message(),
            "a.txt, line 3: a single word; accepted: a passage whose last word is asked");
  EXPECT_EQ(MakeLastWord(" \n", "a.txt").status().message(), "a.txt: no passage; accepted: one per line");
  const auto task = MakeLastWord(SomeText(9000), "a.txt");
  ASSERT_TRUE(task.ok());
  EXPECT_NE(Prepare(**task).message().find("a.txt needs a context of"), std::string::npos);
}

}  // namespace
}  // namespace kvant
