#include "model_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "child_process.h"
#include "eval/fake_runner.h"

namespace kvant {
namespace {

using testing::HasSubstr;

constexpr int64_t kWeights = 1'000'000'000;
constexpr int64_t kPerToken = 100'000;

// Fills contexts that cost what `bytes` says, and remembers which.
struct Filler {
  std::function<int64_t(int)> bytes = [](int tokens) { return kWeights + kPerToken * tokens; };
  int out_of_memory_from = 1 << 30;
  std::vector<int> tried = {};

  Result<FitRow> Find(int64_t limit, int max_tokens = 131072) {
    return FindLargestContext(limit, max_tokens, [&](int tokens) -> Result<int64_t> {
      tried.push_back(tokens);
      if (tokens >= out_of_memory_from) return Status::OutOfMemory("too many");
      return bytes(tokens);
    });
  }
};

TEST(FindLargestContextTest, AStraightLineTakesThreeTrials) {
  Filler filler;
  const Result<FitRow> row = filler.Find(kWeights + 60'000 * kPerToken);
  ASSERT_TRUE(row.ok());
  EXPECT_EQ(row->tokens, 60'000 / 256 * 256);
  EXPECT_EQ(row->used_bytes, kWeights + kPerToken * row->tokens);
  EXPECT_DOUBLE_EQ(row->bytes_per_token, kPerToken);
  EXPECT_FALSE(row->is_whole_context);
  EXPECT_THAT(filler.tried, testing::ElementsAre(1024, 4096, row->tokens));
}

TEST(FindLargestContextTest, WhatIsReturnedWasFilledAndFits) {
  // Dearer, cheaper and in steps compared with what short contexts promise.
  const std::vector<std::function<int64_t(int)>> shapes = {
      [](int t) { return kWeights + kPerToken * t + (t > 20'000 ? 2 * kPerToken * (t - 20'000) : 0); },
      [](int t) { return kWeights + kPerToken * std::min(t, 8'192) + kPerToken / 2 * std::max(0, t - 8'192); },
      [](int t) { return kWeights + kPerToken * (t / 2'048 + 1) * 2'048; }};
  for (const auto& shape : shapes) {
    Filler filler{.bytes = shape};
    const int64_t limit = kWeights + 50'000 * kPerToken;
    const Result<FitRow> row = filler.Find(limit);
    ASSERT_TRUE(row.ok());
    EXPECT_GT(row->tokens, 0);
    EXPECT_LE(row->used_bytes, limit);
    EXPECT_EQ(row->used_bytes, shape(row->tokens));
    EXPECT_THAT(filler.tried, testing::Contains(row->tokens));
    EXPECT_LE(filler.tried.size(), 8u);
    EXPECT_GT(shape(row->tokens + row->tokens / 10), limit) << "no tenth more would fit";
  }
}

TEST(FindLargestContextTest, StopsAtTheModelsContext) {
  Filler filler;
  const Result<FitRow> row = filler.Find(int64_t{1} << 40, 8000);
  ASSERT_TRUE(row.ok());
  EXPECT_EQ(row->tokens, 8000);
  EXPECT_TRUE(row->is_whole_context);
  Filler small;
  EXPECT_EQ(small.Find(int64_t{1} << 40, 500)->tokens, 500);
  EXPECT_THAT(small.tried, testing::ElementsAre(500));
}

TEST(FindLargestContextTest, LittleMemoryLeavesShortContexts) {
  Filler filler;
  EXPECT_EQ(filler.Find(kWeights + 600 * kPerToken)->tokens, 512);
  const Result<FitRow> none = filler.Find(kWeights);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->tokens, 0);
  EXPECT_EQ(none->reason, "256 tokens already take 1.03 GB");
}

TEST(FindLargestContextTest, RunningOutOfMemoryIsTooMany) {
  Filler filler{.out_of_memory_from = 10'000};
  const Result<FitRow> row = filler.Find(int64_t{1} << 40);
  ASSERT_TRUE(row.ok());
  EXPECT_GT(row->tokens, 8'000);
  EXPECT_LT(row->tokens, 10'000);
  Filler never{.out_of_memory_from = 0};
  EXPECT_THAT(never.Find(int64_t{1} << 40)->reason, HasSubstr("tokens are too many"));
}

TEST(FindLargestContextTest, OtherErrorsEndTheSearch) {
  const auto row = FindLargestContext(1, 1000, [](int) -> Result<int64_t> { return Status::InvalidArgument("typo"); });
  EXPECT_EQ(row.status().message(), "typo");
}

const BenchModelProgress kQuiet = [](std::string_view, int64_t, int64_t) {};

TEST(FitModelTest, MeasuresAProcessForEachContext) {
  BenchModelOptions options;
  options.runner = {.model_path = "folder/m.gguf", .batch = 64};
  options.caches = {"f16", "noise"};
  ModelInfo model;
  model.context_train = 512;
  const auto rows = FitModel(options, model, int64_t{1} << 40, FakeRunner::Open, ReadDeviceMemory, kQuiet);
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  ASSERT_EQ(rows->size(), 2u);
  for (const FitRow& row : *rows) {
    EXPECT_EQ(row.tokens, 512);
    EXPECT_EQ(row.x_first, 1);
    EXPECT_GT(row.used_bytes, 1 << 20);
  }
  const std::string text = FitToText(options, {.device = "a processor"}, 2'000'000'000, *rows, false);
  EXPECT_THAT(text, HasSubstr("all 512"));
  EXPECT_THAT(text, HasSubstr("Longest context within 2.000 GB"));
  const auto json = nlohmann::json::parse(FitToJson(options, {}, 2'000'000'000, *rows, "1.2"));
  EXPECT_EQ(json["format"], "kvant-bench-fit");
  EXPECT_EQ(json["limit_bytes"], 2'000'000'000);
  EXPECT_EQ(json["rows"][1]["tokens"], 512);
  options.caches = {"typo"};
  EXPECT_FALSE(FitModel(options, model, 1, FakeRunner::Open, ReadDeviceMemory, kQuiet).ok());
}

TEST(FitModelTest, ADeviceSaysWhatItHasInUse) {
  BenchModelOptions options;
  options.runner = {.model_path = "m.gguf", .batch = 64};
  options.caches = {"f16"};
  ModelInfo model;
  model.context_train = 8192;
  int context = 0;  // allocated at once
  const auto open = [&](const RunnerOptions& o) {
    context = o.context;
    return FakeRunner::Open(o);
  };
  const auto read = [&] { return DeviceMemory{.used_bytes = kWeights + kPerToken * context}; };
  const auto rows = FitModel(options, model, kWeights + 6000 * kPerToken, open, read, kQuiet);
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(rows->front().tokens, 6000 / 256 * 256);
  EXPECT_EQ(rows->front().used_bytes, kWeights + kPerToken * rows->front().tokens);
  EXPECT_FALSE(rows->front().is_whole_context);
}

TEST(ChildProcessTest, GivesResultsErrorsAndDeaths) {
  EXPECT_EQ(*InChildProcess([] { return Result<int64_t>(int64_t{1} << 40); }), int64_t{1} << 40);
  const auto error = InChildProcess([] { return Result<int64_t>(Status::NotSupported("no heads")); });
  EXPECT_EQ(error.status().code(), StatusCode::kNotSupported);
  EXPECT_EQ(error.status().message(), "no heads");
  const auto killed = InChildProcess([]() -> Result<int64_t> {
    raise(SIGKILL);
    return int64_t{0};
  });
  EXPECT_EQ(killed.status().code(), StatusCode::kOutOfMemory);
  const auto ended = InChildProcess([]() -> Result<int64_t> { std::_Exit(3); });
  EXPECT_EQ(ended.status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace kvant
