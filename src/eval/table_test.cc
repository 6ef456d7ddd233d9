#include "eval/table.h"

#include <gtest/gtest.h>

namespace kvant {
namespace {

Table Sample() {
  Table table({{"name"}, {"bits", true}, {"note"}});
  table.AddRow({"kv4", "4.61", "a|b"});
  table.AddRow({"größer", "16.0", "<x>"});
  return table;
}

TEST(TableTest, TextIsAlignedByCharactersNotBytes) {
  EXPECT_EQ(Sample().ToText(),
            "name    bits  note\n"
            "------  ----  ----\n"
            "kv4     4.61  a|b\n"
            "größer  16.0  <x>\n");
}

TEST(TableTest, MarkdownEscapesPipes) {
  EXPECT_EQ(Sample().ToMarkdown(),
            "| name | bits | note |\n"
            "|---|---:|---|\n"
            "| kv4 | 4.61 | a\\|b |\n"
            "| größer | 16.0 | <x> |\n");
}

TEST(TableTest, HtmlEscapesCells) {
  const std::string html = Sample().ToHtml();
  EXPECT_NE(html.find("<td>&lt;x&gt;</td>"), std::string::npos);
  EXPECT_NE(html.find("<td class=\"number\">4.61</td>"), std::string::npos);
  EXPECT_EQ(html.find("<x>"), std::string::npos);
}

TEST(EscapeHtmlTest, CoversAttributeQuotes) { EXPECT_EQ(EscapeHtml("a&\"'\n"), "a&amp;&quot;&#39; "); }

}  // namespace
}  // namespace kvant
