#include "eval/needle.h"

#include <gtest/gtest.h>

#include <set>

#include "eval/fake_runner.h"

namespace kvant {
namespace {

std::unique_ptr<Runner> OpenFake(const char* cache, int context = 4096) {
  auto runner = FakeRunner::Open({.model_path = "fake", .cache = cache, .context = context});
  EXPECT_TRUE(runner.ok());
  return std::move(*runner);
}

std::string TextOf(const Runner& runner, std::span<const int> tokens) {
  std::string text;
  for (int token : tokens) text += runner.Detokenize(token);
  return text;
}

TEST(MakeNeedlesTest, IsDeterministicAndNamesDiffer) {
  const auto a = MakeNeedles(50, 7), b = MakeNeedles(50, 7), c = MakeNeedles(50, 8);
  std::set<std::string> statements;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].statement, b[i].statement);
    EXPECT_EQ(a[i].answer.size(), 5u);
    EXPECT_NE(a[i].statement.find(a[i].answer), std::string::npos);
    EXPECT_EQ(a[i].question.find(a[i].answer), std::string::npos);
    statements.insert(a[i].statement);
  }
  EXPECT_EQ(statements.size(), 50u);
  EXPECT_NE(a[0].statement, c[0].statement);
}

TEST(MakeNeedlesTest, SeedOneIsPinned) {
  // Other machines and later versions must hide the same facts.
  EXPECT_EQ(MakeNeedles(1, 1)[0].statement, "The secret number of Dabalafa is 68628.");
}

TEST(EvenDepthsTest, AreTheMiddlesOfEqualParts) {
  EXPECT_EQ(EvenDepths(4), (std::vector<double>{0.125, 0.375, 0.625, 0.875}));
}

TEST(HideNeedlesTest, InsertsAtTheDepthsAndCutsToTheTotal) {
  const auto runner = OpenFake("f16");
  const std::vector<Needle> needles = {{"AAA 11111.", "", ""}, {"BBB 22222.", "", ""}};
  const std::vector<double> depths = {0.0, 0.5};
  const auto tokens = HideNeedles(*runner, std::string(200, 'x'), "t", needles, depths, 100);
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_EQ(tokens->size(), 100u);
  EXPECT_EQ(tokens->front(), FakeRunner::kBos);
  // 22 of the 100 tokens are needles; half of the other 78 stand before the second one, BOS among them.
  EXPECT_EQ(TextOf(*runner, *tokens), " AAA 11111." + std::string(38, 'x') + " BBB 22222." + std::string(39, 'x'));
}

TEST(HideNeedlesTest, RefusesWhatDoesNotFit) {
  const auto runner = OpenFake("f16");
  const auto needles = MakeNeedles(4, 1);
  const auto few = HideNeedles(*runner, "short text", "a.txt", needles, EvenDepths(4), 1000);
  EXPECT_EQ(few.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(few.status().message().find("a.txt: 11 tokens are too few for 1000"), std::string::npos);
  const auto crowded = HideNeedles(*runner, std::string(999, 'x'), "a.txt", needles, EvenDepths(4), 100);
  EXPECT_NE(crowded.status().message().find("4 needles take"), std::string::npos);
}

TEST(CountNeedlesTest, FindsThemAndLeavesTheRunnerAsItWas) {
  const auto needles = MakeNeedles(6, 3);
  for (const char* cache : {"f16", "noise", "blind"}) {
    const auto runner = OpenFake(cache);
    const auto tokens = HideNeedles(*runner, std::string(3000, 'x'), "t", needles, EvenDepths(6), 2000);
    ASSERT_TRUE(tokens.ok());
    ASSERT_TRUE(runner->Decode(*tokens, false).ok());
    const auto right = CountNeedles(*runner, needles);
    ASSERT_TRUE(right.ok()) << right.status().message();
    EXPECT_EQ(*right, std::string(cache) == "blind" ? 0 : 6) << cache;
    EXPECT_EQ(runner->num_tokens(), 2000);
  }
}

TEST(AskNeedleTest, ReportsAFullContext) {
  const auto runner = OpenFake("f16", 20);
  ASSERT_TRUE(runner->Decode(runner->Tokenize("0123456789", true), false).ok());
  EXPECT_EQ(AskNeedle(*runner, MakeNeedles(1, 1)[0]).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvant
