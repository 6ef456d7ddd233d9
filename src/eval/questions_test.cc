#include "eval/questions.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

std::string Line(const char* name, const char* answer) {
  const std::string prompt =
      std::string("The secret number of ") + name + " is 48213.\nQuestion: What is that of " + name + "? Answer:";
  return Json{{"prompt", prompt}, {"answer", answer}}.dump() + "\n";
}

TEST(QuestionsTest, CountsExactAnswers) {
  auto task = MakeQuestions(Line("Kalo", "48213") + "\n" + Line("Bide", " 48213. ") + Line("Kalo", "4821"), "a.jsonl");
  ASSERT_TRUE(task.ok()) << task.status().message();
  ASSERT_TRUE(Prepare(**task).ok());
  const Json result = ResultOf(**task, "f16");
  EXPECT_EQ(result["right"], 2);
  EXPECT_EQ(result["asked"], 3);
  EXPECT_EQ(ResultOf(**task, "blind")["right"], 0);
}

TEST(IsAnswerTest, ComparesTheFirstLine) {
  EXPECT_TRUE(IsAnswer(" Paris.\nQuestion: more", "Paris"));
  EXPECT_TRUE(IsAnswer("\n\n \"Paris\"\n", "Paris!"));
  EXPECT_FALSE(IsAnswer("Paris is it", "Paris"));
  EXPECT_FALSE(IsAnswer("paris", "Paris"));
  EXPECT_FALSE(IsAnswer("", "Paris"));
  EXPECT_FALSE(IsAnswer("London\nParis", "Paris"));
}

TEST(QuestionsTest, RefusesOtherLines) {
  EXPECT_EQ(MakeQuestions("", "a").status().message(), "a: no lines; accepted: one JSON object per line");
  EXPECT_EQ(MakeQuestions("\n{\"prompt\": ", "a").status().message(),
            "a, line 2: no JSON object; accepted: one object per line");
  EXPECT_EQ(MakeQuestions("{\"prompt\": \"x\"}", "a").status().message(), "a, line 1: no text \"answer\"");
  EXPECT_EQ(MakeQuestions(Line("Kalo", " . "), "a").status().message(), "a, line 1: an empty answer");
}

}  // namespace
}  // namespace kvant
