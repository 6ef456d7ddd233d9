#include "eval/text_lines.h"

#include <gtest/gtest.h>

namespace kvant {
namespace {

TEST(TrimTest, TakesWhiteSpaceFromBothEnds) {
  EXPECT_EQ(Trim(" \t a b\r\n"), "a b");
  EXPECT_EQ(Trim("  "), "");
  EXPECT_EQ(Trim(""), "");
  EXPECT_EQ(TrimEnd("a.b.,", ".,"), "a.b");
}

TEST(LinesTest, SkipsEmptyOnesAndKeepsNumbers) {
  const std::vector<TextLine> lines = Lines("\n a \r\n\n\nb");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].number, 2);
  EXPECT_EQ(lines[0].text, "a");
  EXPECT_EQ(lines[1].number, 5);
  EXPECT_EQ(lines[1].text, "b");
  EXPECT_TRUE(Lines("\n\n").empty());
}

TEST(ParseJsonLinesTest, ReadsObjects) {
  const auto lines = ParseJsonLines("{\"a\": \"x\"}\n\n{\"a\": \"y\", \"b\": 1}\n", "f", {"a"});
  ASSERT_TRUE(lines.ok()) << lines.status().message();
  ASSERT_EQ(lines->size(), 2u);
  EXPECT_EQ((*lines)[1].number, 3);
  EXPECT_EQ((*lines)[1].value["b"], 1);
}

TEST(ParseJsonLinesTest, NamesTheLine) {
  EXPECT_EQ(ParseJsonLines("{\"a\": \"x\"}\n{\"a\": 1}", "f", {"a"}).status().message(), "f, line 2: no text \"a\"");
  EXPECT_EQ(ParseJsonLines("[]", "f", {"a"}).status().message(),
            "f, line 1: no JSON object; accepted: one object per line");
}

}  // namespace
}  // namespace kvant
