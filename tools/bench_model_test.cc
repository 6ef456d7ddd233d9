#include "bench_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "eval/fake_runner.h"

namespace kvant {
namespace {

using testing::HasSubstr;
using testing::Not;

BenchModelOptions Small(std::vector<std::string> caches) {
  BenchModelOptions options;
  options.runner = {.model_path = "folder/m.gguf", .batch = 16, .sequences = 2};
  options.caches = std::move(caches);
  options.lengths = {64, 280};
  options.predict = 3;
  return options;
}

std::vector<BenchModelRow> RowsOf(const BenchModelOptions& options, const OpenRunner& open = FakeRunner::Open) {
  const auto rows = BenchModel(options, open, [](std::string_view, int64_t, int64_t) {});
  EXPECT_TRUE(rows.ok()) << rows.status().message();
  return rows.ok() ? *rows : std::vector<BenchModelRow>{};
}

TEST(BenchModelTest, MeasuresEachCacheAtEachLength) {
  const std::vector<BenchModelRow> rows = RowsOf(Small({"f16", "noise"}));
  ASSERT_EQ(rows.size(), 4u);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].cache, i < 2 ? "f16" : "noise");
    EXPECT_EQ(rows[i].length, i % 2 == 0 ? 64 : 280);
    EXPECT_GT(rows[i].prefill_tokens_per_s, 0);
    EXPECT_GT(rows[i].decode_p10_ms, 0);
    EXPECT_LE(rows[i].decode_p10_ms, rows[i].decode_ms);
    EXPECT_LE(rows[i].decode_ms, rows[i].decode_p90_ms);
    EXPECT_DOUBLE_EQ(rows[i].decode_tokens_per_s, 2000 / rows[i].decode_ms);
    EXPECT_DOUBLE_EQ(rows[i].x_first, rows[i % 2].decode_ms / rows[i].decode_ms);
    EXPECT_EQ(rows[i].reason, "");
  }
  EXPECT_EQ(rows[0].cache_bytes, 4 * rows[2].cache_bytes) << "before decoding";
  EXPECT_EQ(rows[1].cache_bytes * 64, rows[0].cache_bytes * 280);
}

TEST(BenchModelTest, OpensEachCacheOnceForTheLongestContext) {
  std::vector<std::string> opened;
  RowsOf(Small({"f16", "noise"}), [&](const RunnerOptions& o) {
    opened.push_back(StrFormat("%s %d x %d", o.cache.c_str(), o.sequences, o.context));
    return FakeRunner::Open(o);
  });
  EXPECT_THAT(opened, testing::ElementsAre("f16 2 x 283", "noise 2 x 283"));
}

TEST(BenchModelTest, ProgressEndsAtEachLength) {
  std::vector<int64_t> totals;
  const auto rows =
      BenchModel(Small({"f16"}), FakeRunner::Open, [&](std::string_view cache, int64_t done, int64_t total) {
        EXPECT_EQ(cache, "f16");
        if (done == total) totals.push_back(total);
      });
  ASSERT_TRUE(rows.ok());
  EXPECT_THAT(totals, testing::ElementsAre(128, 560));
}

TEST(BenchModelTest, ACacheThatGrowsTooLargeLeavesTheOthersAlone) {
  BenchModelOptions options = Small({"small", "f16"});
  options.lengths = {64, 320};
  const std::vector<BenchModelRow> rows = RowsOf(options);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_GT(rows[0].decode_ms, 0);
  EXPECT_TRUE(rows[1].does_not_fit);
  EXPECT_EQ(rows[1].decode_ms, 0);
  EXPECT_EQ(rows[1].reason, "the fake is full");
  EXPECT_GT(rows[2].x_first, 0);
  EXPECT_GT(rows[3].decode_ms, 0);
  EXPECT_EQ(rows[3].x_first, 0) << "the first has no time at this length";
}

TEST(BenchModelTest, WhatCannotBeOpenedForTheLongestContextIsOpenedForAShorterOne) {
  const std::vector<BenchModelRow> rows = RowsOf(Small({"f16"}), [](const RunnerOptions& o) {
    if (o.context > 100)
      return Result<std::unique_ptr<Runner>>(Status::NotSupported("no context: failed to allocate 9 MiB"));
    return FakeRunner::Open(o);
  });
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_GT(rows[0].decode_ms, 0);
  EXPECT_TRUE(rows[1].does_not_fit);
  EXPECT_THAT(rows[1].reason, HasSubstr("9 MiB"));
}

TEST(BenchModelTest, ACacheThatTheModelDoesNotAllowSaysWhy) {
  const auto open = [](const RunnerOptions& o) {
    if (o.cache == "odd") return Result<std::unique_ptr<Runner>>(Status::NotSupported("heads of 65 values"));
    return FakeRunner::Open(o);
  };
  const BenchModelOptions options = Small({"odd", "f16"});
  const std::vector<BenchModelRow> rows = RowsOf(options, open);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_FALSE(rows[0].does_not_fit);
  EXPECT_EQ(rows[0].reason, "heads of 65 values");
  EXPECT_GT(rows[2].decode_ms, 0);
  const std::string text = BenchModelToText(options, {.rows = rows}, false);
  EXPECT_THAT(text, HasSubstr("not possible"));
  EXPECT_THAT(text, HasSubstr("odd at 64: heads of 65 values\n"));
}

TEST(BenchModelTest, AnUnknownCacheIsAnError) {
  const auto rows = BenchModel(Small({"f16", "typo"}), FakeRunner::Open, [](std::string_view, int64_t, int64_t) {});
  EXPECT_EQ(rows.status().code(), StatusCode::kInvalidArgument);
}

TEST(BenchModelTest, LengthsHaveToSuitTheModel) {
  ModelInfo model;
  model.context_train = 8192;
  BenchModelOptions options = Small({"f16"});
  options.lengths = {64, 8189};
  EXPECT_TRUE(CheckLengths(options, model).ok());
  options.lengths.back() = 8190;
  EXPECT_EQ(CheckLengths(options, model).message(),
            "--at 8190 and --predict 3: the model was trained for at most 8192 tokens");
  model.context_train = 1 << 30;
  options.lengths.back() = 1 << 24;
  options.runner.sequences = 256;
  EXPECT_THAT(CheckLengths(options, model).message(), HasSubstr("--at 16777216 and --sequences 256: together at most"));
}

BenchModelReport TwoRows() {
  BenchModelReport report{.device = "a processor", .system = "Linux"};
  report.model.description = "llama 8B Q8_0";
  report.model.file_bytes = 8540000000;
  report.rows = {{.cache = "f16",
                  .length = 2048,
                  .prefill_tokens_per_s = 123.4,
                  .decode_ms = 20,
                  .decode_p10_ms = 19,
                  .decode_p90_ms = 22.5,
                  .decode_tokens_per_s = 50,
                  .cache_bytes = 1500000,
                  .x_first = 1},
                 {.cache = "f16", .length = 8192, .does_not_fit = true, .reason = "too large"}};
  return report;
}

TEST(BenchModelTest, TableHasNumbersReasonsAndTheMachine) {
  BenchModelOptions options = Small({"f16"});
  const std::string text = BenchModelToText(options, TwoRows(), false);
  EXPECT_THAT(text, HasSubstr("x f16"));
  EXPECT_THAT(text, HasSubstr("f16      2048            123      20.00  19.00-22.50   50.0       1.5   1.00\n"));
  EXPECT_THAT(text, HasSubstr("does not fit"));
  EXPECT_THAT(text, HasSubstr("f16 at 8192: too large\n"));
  EXPECT_THAT(text, HasSubstr("llama 8B Q8_0, 8.54 GB; a processor, 2 threads."));
  EXPECT_THAT(text, HasSubstr("one token in each of 2 sequences"));
  options.runner.sequences = 1;
  EXPECT_THAT(BenchModelToText(options, TwoRows(), true), Not(HasSubstr("sequences")));
  EXPECT_THAT(BenchModelToText(options, TwoRows(), true), HasSubstr("| f16 | 2048 |"));
}

TEST(BenchModelTest, JsonHasEverything) {
  const auto json = nlohmann::json::parse(BenchModelToJson(Small({"f16"}), TwoRows(), "1.2"));
  EXPECT_EQ(json["format"], "kvant-bench-model");
  EXPECT_EQ(json["model"], "m.gguf");
  EXPECT_EQ(json["environment"]["device"], "a processor");
  EXPECT_EQ(json["prompt_batch"], 16);
  EXPECT_EQ(json["rows"][0]["decode_p90_ms"], 22.5);
  EXPECT_EQ(json["rows"][0]["cache_bytes"], 1500000);
  EXPECT_EQ(json["rows"][1],
            (nlohmann::json{{"cache", "f16"}, {"tokens", 8192}, {"fits", false}, {"reason", "too large"}}));
}

}  // namespace
}  // namespace kvant
