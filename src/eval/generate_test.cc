#include "eval/generate.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

TEST(FeedPagesTest, FeedsAll) {
  const auto whole = test::OpenFake(), pages = test::OpenFake();
  const std::vector<int> tokens = whole->Tokenize(test::SomeText(200), true);
  ASSERT_TRUE(whole->Decode(tokens, false).ok());
  ASSERT_TRUE(FeedPages(*pages, tokens).ok());
  EXPECT_EQ(pages->num_tokens(), 201);
  EXPECT_TRUE(std::ranges::equal(whole->Logits(-1), pages->Logits(-1)));
}

TEST(GenerateTextTest, StopsWhenDoneOrFull) {
  const auto runner = test::OpenFake();
  ASSERT_TRUE(runner->Decode(runner->Tokenize("Kalo 48213. Question: Kalo? Answer:", true), false).ok());
  const int64_t held = runner->num_tokens();
  const auto text = GenerateText(*runner, 100, [](std::string_view t) { return t.ends_with("."); });
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, " 48213.");
  EXPECT_EQ(runner->num_tokens(), held + 6) << "the last token is not fed";
  ASSERT_TRUE(runner->Truncate(held).ok());
  ASSERT_TRUE(runner->Decode(runner->Tokenize(" ", false), false).ok());
  EXPECT_EQ(*GenerateText(*runner, 3, [](std::string_view) { return false; }), "482");
}

TEST(GenerateTokensTest, AreTheMostProbable) {
  const auto runner = test::OpenFake();
  ASSERT_TRUE(runner->Decode(runner->Tokenize("Kalo 48213. Question: Kalo? Answer:", true), false).ok());
  const auto tokens = GenerateTokens(*runner, 4);
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(*tokens, (std::vector<int>{' ', '4', '8', '2'}));
}

}  // namespace
}  // namespace kvant
