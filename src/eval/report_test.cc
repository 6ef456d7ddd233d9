#include "eval/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace kvant {
namespace {

Report Sample() {
  Report report{.kvant_version = "0.1.0",
                .model_hash = "abc",
                .environment = {"a cpu", "a system", "a hash"},
                .model = "m<1>.gguf",
                .text = "a.txt",
                .tokens = 100,
                .skip = 50,
                .batch = 32,
                .scored_batch = 16,
                .needles = 4,
                .seed = 1,
                .threads = 2,
                .results_folder = "kept",
                .task_columns = {"drift", "shift"},
                .rows = {}};
  ReportRow row;
  row.cache = "kv4";
  row.scheme = "k=int:bits=4 v=int:bits=4";
  row.divergence = {.positions = 49,
                    .kl = 0.001234567,
                    .kl_stderr = 0.0001,
                    .kl_interval = {0.001, 0.0015},
                    .kl_p99 = 0.01,
                    .top1 = 0.975,
                    .ppl_reference = 10,
                    .ppl = 10.5,
                    .kl_by_window = {0.001, 0.0015}};
  row.needles_right = 3;
  row.use.footprint.values = 1000;
  row.use.footprint.by_kind[static_cast<int>(StreamKind::kCodes)] = 500;
  row.use.footprint.by_kind[static_cast<int>(StreamKind::kScales)] = 62;
  row.use.memory_bytes = 1'500'000;
  row.use.fp16_bytes = 4'000'000;
  row.prefill_tokens_per_s = 800;
  row.encode_share = 0.025;
  row.results = {{"tasks", {{"drift", {{"tokens", 256}}}}}, {"measured", {{"speed_by_context", {1, 2}}}}};
  row.task_cells = {"12 (40 %)", ""};
  row.from_earlier = {"text", "drift"};
  report.rows = {row};
  return report;
}

TEST(ReportTest, TextHasTheNumbersAndTheBreakdown) {
  const std::string text = ReportToText(Sample());
  EXPECT_NE(text.find("m<1>.gguf on a.txt: 100 tokens, 49 scored, 4 needles, 2 threads"), std::string::npos);
  EXPECT_NE(text.find("0.00123"), std::string::npos);
  EXPECT_NE(text.find("3/4"), std::string::npos);
  EXPECT_NE(text.find("codes 4.000 + scales 0.496"), std::string::npos) << text;
}

TEST(ReportTest, WhatWasNotMeasuredIsADash) {
  Report report = Sample();
  report.needles = 0;
  const std::string markdown = ReportToMarkdown(report);
  EXPECT_NE(markdown.find("| 10.500 | - | 1.5 | 0.0 | 800 | 2.5 % | - | - |"), std::string::npos) << markdown;
}

TEST(ReportTest, JsonKeepsFullPrecision) {
  const auto json = nlohmann::json::parse(ReportToJson(Sample()));
  const auto& row = json["rows"][0];
  EXPECT_EQ(row["kl"], 0.001234567);
  EXPECT_EQ(row["needles_right"], 3);
  EXPECT_EQ(row["scheme"], "k=int:bits=4 v=int:bits=4");
  EXPECT_EQ(row["memory"]["bits_per_value"], 8.0 * 562 / 1000);
  EXPECT_EQ(row["memory"]["bits_by_kind"]["codes"], 4.0);
  EXPECT_EQ(row["measured"]["prefill_tokens_per_s"], 800.0);
}

TEST(ReportTest, JsonSaysWhatItIsAndWhereItComesFrom) {
  const auto json = nlohmann::json::parse(ReportToJson(Sample()));
  EXPECT_EQ(json["format"], "kvant-eval");
  EXPECT_EQ(json["format_version"], 2);
  EXPECT_EQ(json["kvant_version"], "0.1.0");
  EXPECT_EQ(json["model_hash"], "abc");
  EXPECT_EQ(json["environment"],
            (nlohmann::json{{"cpu", "a cpu"}, {"device", "CPU"}, {"threads", 2}, {"system", "a system"}}));
}

TEST(ReportTest, JsonHasIntervalAndCurve) {
  const auto row = nlohmann::json::parse(ReportToJson(Sample()))["rows"][0];
  EXPECT_EQ(row["kl_low"], 0.001);
  EXPECT_EQ(row["kl_high"], 0.0015);
  EXPECT_EQ(row["kl_by_position"], (nlohmann::json{{"window", 64}, {"kl", {0.001, 0.0015}}}));
}

TEST(ReportTest, ResultsOfTasksStandInTheirPlaces) {
  const auto row = nlohmann::json::parse(ReportToJson(Sample()))["rows"][0];
  EXPECT_EQ(row["tasks"]["drift"]["tokens"], 256);
  EXPECT_EQ(row["measured"]["speed_by_context"], (nlohmann::json{1, 2}));
  EXPECT_EQ(row["measured"]["prefill_tokens_per_s"], 800.0) << "merged, not replaced";
  EXPECT_NE(ReportToMarkdown(Sample()).find("| kv4 | 12 (40 %) | - |"), std::string::npos);
  Report without = Sample();
  without.task_columns.clear();
  EXPECT_EQ(ReportToText(without).find("drift  "), std::string::npos);
}

TEST(ReportTest, SaysWhatWasNotMeasuredAgain) {
  const auto row = nlohmann::json::parse(ReportToJson(Sample()))["rows"][0];
  EXPECT_EQ(row["measured"]["from_earlier"], (nlohmann::json{"text", "drift"}));
  EXPECT_NE(ReportToText(Sample()).find("Not measured again, from kept: kv4 (text, drift)\n"), std::string::npos);
  Report fresh = Sample();
  fresh.rows[0].from_earlier.clear();
  EXPECT_EQ(ReportToText(fresh).find("Not measured again"), std::string::npos);
}

TEST(ReportTest, JsonSurvivesForeignFileNames) {
  Report report = Sample();
  report.text = "\xFF.txt";
  EXPECT_TRUE(nlohmann::json::accept(ReportToJson(report)));
}

}  // namespace
}  // namespace kvant
