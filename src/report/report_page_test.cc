#include "report/report_page.h"

#include <gtest/gtest.h>

namespace kvant {
namespace {

constexpr const char* kEvil = "<script>alert('\\u0001&')</script>";

// Not a matcher: it would print the page.
bool Has(const std::string& page, const std::string& text) { return page.find(text) != std::string::npos; }

ReportInput Parse(const std::string& json, const std::string& name) {
  Result<ReportInput> input = ParseReportInput(json, name);
  EXPECT_TRUE(input.ok()) << input.status().message();
  return *std::move(input);
}

// A file with all keys, all names from `name`.
std::string FullEval(const std::string& name) {
  std::string rows;
  for (const char* kl : {"0", "0.01", "0.002"}) {
    rows += std::string(rows.empty() ? "" : ",") + R"({"cache":")" + name + kl + R"(","scheme":"s","kl":)" + kl +
            R"(,"kl_low":0.0001,"kl_high":0.02,"top1":0.9,"perplexity":9,"needles_right":3,
      "memory":{"bits_per_value":)" +
            std::to_string(2 + rows.size() % 7) + R"(.5,"cache_bytes":1000,"bits_by_kind":{"codes":2,")" + name +
            R"(":0.5}},
      "kl_by_position":{"window":64,"kl":[0.1,0,0.2]},"attention_error_by_layer":[0.1,0.2],
      "tasks":{"needle_grid":{"lengths":[100],"depths":[0,1],"right":[[1,0]],"asked":[[2,0]]},"questions":{"right":1,"asked":2},
               "drift":{"tokens":256,"first_difference":256,"agreement":1},"context_shift":{"kl":0.1}},
      "measured":{"decode_ms":2,"prefill_tokens_per_s":100,"speed_by_context":[{"tokens":10,"decode_ms":1,"prefill_tokens_per_s":5}]}})";
  }
  return R"({"format":"kvant-eval","format_version":2,"model":")" + name + R"(","text":")" + name +
         R"(","needles":4,"skip":50,"model_hash":")" + name + R"(","environment":{"cpu":")" + name +
         R"(","threads":2},"rows":[)" + rows + "]}";
}

std::string FullPlan(const std::string& name) {
  return R"({"format":"kvant-plan","model":")" + name + R"(","layers":["k=)" + name +
         R"( v=int:bits=4"],"measured":{"text":")" + name +
         R"(","kl":0.01,"kl_stderr":0.001,"bits_per_value":3},"predicted":{"kl":0.011},"uniform":[{"cache":")" + name +
         R"(","kl":0.04,"bits_per_value":2},{"kl":0.01,"bits_per_value":4}],"tuning":{"validation":[{"predicted_kl":0.1,"measured_kl":0.12}]}})";
}

TEST(ReportPageTest, HasASectionForEverythingInTheFiles) {
  const std::string page = ReportPage({Parse(FullEval("a"), "a.json"), Parse(FullPlan("b"), "b.json")}, "1.0");
  for (const char* title : {"Quality against memory", "Plan b.json", "Bits by layer", "Predicted against measured",
                            "Tasks", "Needles by length and depth", "Where the error is", "Speed against context",
                            "What the bits are made of", "Environment"}) {
    EXPECT_TRUE(Has(page, std::string(title) + "</h")) << title;
  }
  EXPECT_TRUE(Has(page, "0.50 times the KL of one scheme for all layers at the same size (0.02000"));
}

TEST(ReportPageTest, WhatIsMissingIsLeftOut) {
  const std::string page = ReportPage(
      {Parse(R"({"format":"kvant-eval","rows":[{"cache":"kv4"}]})", "a"),
       Parse(R"({"format":"kvant-eval","rows":[]})", "b"), Parse(R"({"format":"kvant-plan","layers":[]})", "c")},
      "1.0");
  EXPECT_TRUE(Has(page, "Quality against memory"));  // the table
  for (const char* title : {"Tasks", "Speed against context", "Where the error is", "Plan c", "What the bits"}) {
    EXPECT_FALSE(Has(page, title));
  }
  EXPECT_FALSE(Has(page, "decode ms"));  // a column
  EXPECT_FALSE(Has(page, "nan"));
  EXPECT_FALSE(Has(page, "<figure>"));
}

TEST(ReportPageTest, IsSelfContainedEscapedAndTheSameTwice) {
  const std::vector<ReportInput> inputs = {Parse(FullEval(kEvil), "<b>'\"x"), Parse(FullPlan(kEvil), "<i>")};
  const std::string page = ReportPage(inputs, "1.0");
  EXPECT_EQ(page, ReportPage(inputs, "1.0"));
  for (const char* foreign : {"http", "url(", "@import", "src=", "alert('", "<b>", "<i>", "\x01"}) {
    EXPECT_FALSE(Has(page, foreign)) << foreign;
  }
  EXPECT_TRUE(Has(page, "&lt;script&gt;alert(&#39; &amp;&#39;)&lt;/script&gt;"));
  size_t scripts = 0;
  for (size_t at = 0; (at = page.find("<script", at)) != std::string::npos; ++at) ++scripts;
  EXPECT_EQ(scripts, 1u);
}

TEST(ReportPageTest, SaysWhenFilesCannotBeCompared) {
  const std::string page = ReportPage({Parse(FullEval("a"), "1"), Parse(FullEval("b"), "2")}, "1.0");
  EXPECT_TRUE(Has(page, "These files are of different models (a, b)"));
  EXPECT_TRUE(Has(page, "different texts (a, b)"));
  EXPECT_TRUE(Has(page, "<h3>1</h3>"));
  EXPECT_FALSE(Has(ReportPage({Parse(FullEval("a"), "1")}, "1.0"), "class=\"note\""));
}

TEST(ReportPageTest, FiguresAreNamedForThoseWhoDoNotSeeThem) {
  const std::string page = ReportPage({Parse(FullEval("a"), "a.json"), Parse(FullPlan("b"), "b.json")}, "1.0");
  for (size_t at = 0; (at = page.find("<svg", at)) != std::string::npos; ++at) {
    const std::string tag = page.substr(at, page.find('>', at) - at);
    const bool named = tag.find("role=\"img\" aria-label=\"") != std::string::npos;
    EXPECT_TRUE(named || tag.find("aria-hidden") != std::string::npos) << tag;
  }
}

}  // namespace
}  // namespace kvant
