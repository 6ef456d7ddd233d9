#include "report/report_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvant {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

EvalInput Eval(const std::string& json) {
  Result<ReportInput> input = ParseReportInput(json, "a.json");
  EXPECT_TRUE(input.ok()) << input.status().message();
  return input.ok() ? std::get<EvalInput>(*input) : EvalInput{};
}

PlanInput Plan(const std::string& json) {
  Result<ReportInput> input = ParseReportInput(json, "p.json");
  EXPECT_TRUE(input.ok()) << input.status().message();
  return input.ok() ? std::get<PlanInput>(*input) : PlanInput{};
}

std::string Refused(const std::string& json) {
  const Result<ReportInput> input = ParseReportInput(json, "a.json");
  EXPECT_FALSE(input.ok()) << json;
  return input.status().message();
}

TEST(ReportInputTest, EveryKeyOfARowIsOptional) {
  const EvalInput eval = Eval(R"({"format":"kvant-eval","rows":[{"cache":"kv4"}]})");
  ASSERT_EQ(eval.rows.size(), 1u);
  EXPECT_EQ(eval.rows[0].cache, "kv4");
  EXPECT_FALSE(eval.rows[0].kl || eval.rows[0].bits || eval.rows[0].needle_grid);
}

TEST(ReportInputTest, ReadsWhatTheFirstVersionWrote) {
  const EvalInput eval = Eval(R"({"model":"m","scored_batch":64,"rows":[
      {"cache":"kv4","kl":0.5,"kl_stderr":0.1,"memory":{"bits_per_value":4.5,"bits_by_kind":{"codes":4,"bases":0}}}]})");
  EXPECT_EQ(eval.rows[0].kl, 0.5);
  EXPECT_NEAR(*eval.rows[0].kl_low, 0.304, 1e-9);
  EXPECT_NEAR(*eval.rows[0].kl_high, 0.696, 1e-9);
  EXPECT_THAT(eval.rows[0].bits_by_kind, ElementsAre(std::pair<std::string, double>("codes", 4)));
}

TEST(ReportInputTest, ReadsTasksAndSpeeds) {
  const EvalInput eval = Eval(R"({"format":"kvant-eval","format_version":2,"rows":[{"cache":"x",
      "kl_by_position":{"window":64,"kl":[0.1,0.2]},
      "tasks":{"needle_grid":{"lengths":[10,20],"depths":[0.5],"right":[[1],[0]],"asked":[[2],[2]]},
               "last_word":{"right":3,"asked":4,"low":0.5,"high":0.9},"questions":{"right":0,"asked":0},
               "drift":{"tokens":256,"first_difference":20,"agreement":0.5}},
      "measured":{"speed_by_context":[{"tokens":100,"decode_ms":2.5}]}}]})");
  const EvalRow& row = eval.rows[0];
  EXPECT_THAT(row.kl_by_position, ElementsAre(0.1, 0.2));
  EXPECT_THAT(row.needle_grid->right, ElementsAre(ElementsAre(1), ElementsAre(0)));
  ASSERT_EQ(row.scores.size(), 1u);  // nothing was asked of the other
  EXPECT_EQ(row.scores[0].task, "last word");
  EXPECT_EQ(row.drift_first_difference, 20);
  EXPECT_EQ(row.speed.at(0).decode_ms, 2.5);
}

TEST(ReportInputTest, GridsThatDoNotFitAreLeftOut) {
  const EvalInput eval = Eval(R"({"format":"kvant-eval","rows":[{"cache":"x","tasks":{
      "needle_grid":{"lengths":[10,20],"depths":[0.5],"right":[[1]],"asked":[[2],[2]]}}},
      {"cache":"y","tasks":{"needle_grid":{"lengths":[10],"depths":[0.5],"right":[[1,2]],"asked":[[2]]}}},
      {"cache":"z","kl":"no number","memory":7,"tasks":[],"measured":null,"kl_by_position":{"kl":[1]}}]})");
  for (const EvalRow& row : eval.rows) EXPECT_FALSE(row.needle_grid) << row.cache;
  EXPECT_FALSE(eval.rows[2].kl);
  EXPECT_TRUE(eval.rows[2].kl_by_position.empty());
}

TEST(ReportInputTest, PlansTakeTheirBitsFromTheCosts) {
  const PlanInput plan = Plan(R"({"format":"kvant-plan","format_version":1,
      "layers":["k=a:bits=3,code=x v=b:2","v=c k=a:bits=3,code=x sink=4"],
      "measured":{"kl":0.1,"bits_per_value":3},"predicted":{"kl":0.09},"uniform":[{"cache":"u","kl":0.2,"bits_per_value":3}],
      "tuning":{"candidates":["a:bits=3,code=x","b:2"],"costs":[
          {"layer":0,"side":"k","candidate":0,"bits_per_value":3.25},{"layer":1,"side":"k","candidate":0,"bits_per_value":3.5}],
        "validation":[{"predicted_kl":0.1,"measured_kl":0.2},{"predicted_kl":1}]}})");
  ASSERT_EQ(plan.layers.size(), 2u);
  EXPECT_EQ(plan.layers[0].key.codec, "a:bits=3,code=x");
  EXPECT_EQ(plan.layers[0].key.bits, 3.25);
  EXPECT_EQ(plan.layers[0].value.bits, 2);  // by its name
  EXPECT_EQ(plan.layers[1].key.bits, 3.5);
  EXPECT_EQ(plan.layers[1].value.codec, "c");
  EXPECT_FALSE(plan.layers[1].value.bits);
  EXPECT_THAT(plan.validation, ElementsAre(std::pair(0.1, 0.2)));
}

TEST(ReportInputTest, RefusesOtherFilesInOneLine) {
  for (const char* text : {"", "hello", "{", "[1,2", "{\"a\":1}\nrubbish"}) {
    EXPECT_THAT(Refused(text), HasSubstr("a.json: not JSON")) << text;
  }
  for (const char* text :
       {"1", "[]", "{}", R"({"rows":[]})", R"({"format":"kvant-eval"})", R"({"format":"kvant-eval","rows":[1]})",
        R"({"format":"kvant-plan","layers":[1]})", R"({"format":"other","scored_batch":1,"rows":[]})"}) {
    EXPECT_THAT(Refused(text), HasSubstr("a.json: JSON of another kind; accepted: ")) << text;
    EXPECT_EQ(Refused(text).find('\n'), std::string::npos);
  }
  EXPECT_THAT(Refused(R"({"format":"kvant-eval","format_version":3,"rows":[]})"),
              HasSubstr("format version 3; accepted: up to 2"));
}

}  // namespace
}  // namespace kvant
