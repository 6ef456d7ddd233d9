#include "eval/evaluate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "eval/fake_runner.h"

namespace kvant {
namespace {

const EvaluateProgress kSilent = [](std::string_view, int64_t, int64_t) {};

EvaluateOptions Options() {
  return {.model_path = "fakes/model.gguf",
          .model_hash = "hash",
          .kvant_version = "0",
          .caches = {"noise", "blind"},
          .text = {.tokens = 1024, .batch = 100, .needles = 3}};
}

std::string Text() { return std::string(2000, 'x'); }

TEST(EvaluateTest, TheReferenceComesFirstAndIsExact) {
  const auto report = Evaluate(Options(), Text(), FakeRunner::Open, kSilent);
  ASSERT_TRUE(report.ok()) << report.status().message();
  ASSERT_EQ(report->rows.size(), 3u);
  EXPECT_EQ(report->model, "model.gguf");
  EXPECT_EQ(report->skip, 512);
  const ReportRow& f16 = report->rows[0];
  EXPECT_EQ(f16.cache, "f16");
  EXPECT_EQ(f16.divergence.positions, 511);
  EXPECT_EQ(f16.divergence.kl, 0.0);
  EXPECT_EQ(f16.divergence.kl_by_window, std::vector<double>(8, 0.0));
  EXPECT_EQ(f16.divergence.top1, 1.0);
  EXPECT_EQ(f16.needles_right, 3);
  EXPECT_EQ(f16.use.footprint.rows, 1024u);
  EXPECT_EQ(f16.use.footprint.bits_per_value(), 16.0);
}

TEST(EvaluateTest, OtherCachesAreComparedWithIt) {
  const auto report = Evaluate(Options(), Text(), FakeRunner::Open, kSilent);
  ASSERT_TRUE(report.ok());
  const ReportRow& noise = report->rows[1];
  // Uniform noise of variance 1/12 on the logits: half of that, less what the softmax's weights take away.
  EXPECT_GT(noise.divergence.kl, 0.005);
  EXPECT_LT(noise.divergence.kl, 1.0 / 24);
  EXPECT_LT(noise.divergence.top1, 1.0);
  EXPECT_LT(noise.divergence.kl_interval.low, noise.divergence.kl);
  EXPECT_GT(noise.divergence.kl_interval.high, noise.divergence.kl);
  EXPECT_EQ(noise.needles_right, 3);
  EXPECT_EQ(noise.use.footprint.bits_per_value(), 4.0);
  EXPECT_EQ(report->rows[2].needles_right, 0);
}

TEST(EvaluateTest, GivesTheSameNumbersTwice) {
  const auto numbers = [] {
    const auto report = Evaluate(Options(), Text(), FakeRunner::Open, kSilent);
    auto json = nlohmann::json::parse(ReportToJson(*report));
    for (auto& row : json["rows"]) row.erase("measured");
    return json;
  };
  EXPECT_EQ(numbers(), numbers());
}

TEST(EvaluateTest, ChunkSizesDoNotMoveExactCaches) {
  EvaluateOptions other = Options();
  other.text.batch = 1000;
  other.text.scored_batch = 33;
  const auto a = Evaluate(Options(), Text(), FakeRunner::Open, kSilent),
             b = Evaluate(other, Text(), FakeRunner::Open, kSilent);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->rows[1].divergence.kl, b->rows[1].divergence.kl);
  EXPECT_EQ(a->rows[1].divergence.ppl, b->rows[1].divergence.ppl);
}

TEST(EvaluateTest, ProgressRunsToTheEndForEachCache) {
  std::vector<std::string> finished;
  const auto report =
      Evaluate(Options(), Text(), FakeRunner::Open, [&](std::string_view stage, int64_t done, int64_t total) {
        EXPECT_EQ(total, 1024);
        if (done == total) finished.emplace_back(stage);
      });
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(finished, (std::vector<std::string>{"f16", "noise", "blind"}));
}

TEST(EvaluateTest, RefusesAWrongCacheBeforeAnyWork) {
  EvaluateOptions options = Options();
  options.caches = {"noise", "bogus"};
  bool worked = false;
  const auto report =
      Evaluate(options, Text(), FakeRunner::Open, [&](std::string_view, int64_t, int64_t) { worked = true; });
  EXPECT_EQ(report.status().message(), "cache: 'bogus' is unknown; accepted: f16, noise, blind");
  EXPECT_FALSE(worked);
}

TEST(EvaluateTest, RefusesSizesThatDoNotFit) {
  EvaluateOptions options = Options();
  options.text.tokens = 9000;
  EXPECT_EQ(Evaluate(options, Text(), FakeRunner::Open, kSilent).status().message(),
            "tokens 9000 is not accepted: the model's context is 8192; accepted: up to 8096");
  options.text.tokens = 4096;
  EXPECT_NE(Evaluate(options, Text(), FakeRunner::Open, kSilent).status().message().find("too few for 4096"),
            std::string::npos);
  options = Options();
  options.text.skip = 1023;
  EXPECT_EQ(Evaluate(options, Text(), FakeRunner::Open, kSilent).status().message(),
            "skip 1023 is not accepted; accepted: 1..1022");
}

// ---- results of earlier runs

/// A task whose result is the name of the cache; null for "blind".
class NameTask : public Task {
 public:
  explicit NameTask(bool needs_reference, int option = 0)
      : info_{"name", "/tasks/name", "name", needs_reference}, option_(option) {}
  const TaskInfo& info() const override { return info_; }
  nlohmann::json options() const override { return option_; }
  Status Prepare(const Runner&) override { return Status::Ok(); }
  Result<nlohmann::json> Run(const TaskRun& run) override {
    ran.push_back(run.options.cache);
    EXPECT_EQ(run.is_reference, run.options.cache == "f16");
    if (run.options.cache == fails) return Status::OutOfMemory("no more");
    if (run.options.cache == "blind") return nlohmann::json();
    return nlohmann::json(run.options.cache);
  }
  std::string Show(const nlohmann::json& result) const override { return "is " + result.get<std::string>(); }

  std::vector<std::string> ran;
  std::string fails;

 private:
  const TaskInfo info_;
  const int option_;
};

class EvaluateAgainTest : public testing::Test {
 protected:
  EvaluateAgainTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(folder_);
    options_.results = *ResultCache::Open(folder_.string());
  }
  ~EvaluateAgainTest() override { std::filesystem::remove_all(folder_); }

  /// Evaluates and notes which caches the text went through.
  Report Run() {
    texts_.clear();
    const auto note = [this](std::string_view stage, int64_t done, int64_t total) {
      if (done == total) texts_.emplace_back(stage);
    };
    auto report = Evaluate(options_, Text(), FakeRunner::Open, note);
    EXPECT_TRUE(report.ok()) << report.status().message();
    return report.ok() ? *report : Report();
  }

  using Names = std::vector<std::string>;
  const std::filesystem::path folder_;
  EvaluateOptions options_ = Options();
  Names texts_;
};

nlohmann::json NumbersOf(const Report& report) {
  auto json = nlohmann::json::parse(ReportToJson(report));
  for (auto& row : json["rows"]) row["measured"].erase("from_earlier");
  return json;
}

TEST_F(EvaluateAgainTest, ARepeatedRunMeasuresNothing) {
  const Report first = Run();
  EXPECT_EQ(texts_, (Names{"f16", "noise", "blind"}));
  EXPECT_TRUE(first.rows[1].from_earlier.empty());
  const Report second = Run();
  EXPECT_EQ(texts_, Names());
  EXPECT_EQ(second.rows[1].from_earlier, Names{"text"});
  EXPECT_EQ(NumbersOf(first), NumbersOf(second)) << "times included";
}

TEST_F(EvaluateAgainTest, AnotherCacheIsAdded) {
  options_.caches = {"noise"};
  const Report first = Run();
  options_.caches = {"noise", "blind"};
  const Report second = Run();
  EXPECT_EQ(texts_, (Names{"f16", "blind"})) << "f16 for its logits";
  EXPECT_EQ(second.rows[0].prefill_tokens_per_s, first.rows[0].prefill_tokens_per_s) << "its times are not replaced";
  const Report fresh = *Evaluate(Options(), Text(), FakeRunner::Open, kSilent);
  EXPECT_EQ(second.rows[2].divergence.kl, fresh.rows[2].divergence.kl);
}

TEST_F(EvaluateAgainTest, WhatMattersIsMeasuredAgain) {
  Run();
  const std::vector<std::function<void(EvaluateOptions&)>> changes = {[](auto& o) { o.model_hash = "another"; },
                                                                      [](auto& o) { o.kvant_version = "1"; },
                                                                      [](auto& o) { o.text.tokens = 1023; },
                                                                      [](auto& o) { o.text.skip = 500; },
                                                                      [](auto& o) { o.text.batch = 99; },
                                                                      [](auto& o) { o.text.scored_batch = 63; },
                                                                      [](auto& o) { o.text.needles = 2; },
                                                                      [](auto& o) { o.text.seed = 2; },
                                                                      [](auto& o) { o.threads = 3; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    options_ = Options();
    options_.results = *ResultCache::Open(folder_.string());
    changes[i](options_);
    Run();
    EXPECT_EQ(texts_.size(), 3u) << "change " << i;
  }
}

TEST_F(EvaluateAgainTest, TimesAreAddedWhenTheyAreMissing) {
  options_.text.decode_tokens = 0;
  Run();
  options_.text.decode_tokens = 4;
  EXPECT_GT(Run().rows[1].decode_ms, 0);
  EXPECT_EQ(texts_.size(), 3u);
  options_.text.decode_tokens = 8;  // of the same
  Run();
  options_.text.decode_tokens = 0;
  EXPECT_GT(Run().rows[1].decode_ms, 0);
  EXPECT_EQ(texts_, Names());
}

TEST_F(EvaluateAgainTest, AnInterruptedRunLosesOnlyWhatWasAtWork) {
  const auto task = std::make_shared<NameTask>(false);
  task->fails = "noise";
  options_.tasks = {task};
  EXPECT_EQ(Evaluate(options_, Text(), FakeRunner::Open, kSilent).status().message(), "no more");
  task->fails.clear();
  task->ran.clear();
  const Report report = Run();
  EXPECT_EQ(texts_, Names());
  EXPECT_EQ(task->ran, (Names{"noise", "blind"}));
  EXPECT_EQ(report.rows[0].from_earlier, (Names{"text", "name"}));
  EXPECT_EQ(report.rows[1].from_earlier, Names{"text"});
}

TEST_F(EvaluateAgainTest, DamagedResultsAreMeasuredAgain) {
  Run();
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    auto entry = nlohmann::json::parse(std::ifstream(file.path()));
    entry["value"].erase("use");
    std::ofstream(file.path()) << entry;
  }
  Run();
  EXPECT_EQ(texts_.size(), 3u);
}

// ---- tasks

TEST_F(EvaluateAgainTest, TasksStandInTheReport) {
  options_.tasks = {std::make_shared<NameTask>(false)};
  for (int run = 0; run < 2; ++run) {
    const Report report = Run();
    EXPECT_EQ(report.task_columns, Names{"name"});
    EXPECT_EQ(report.rows[1].task_cells, Names{"is noise"});
    EXPECT_EQ(report.rows[1].results["tasks"]["name"], "noise");
    EXPECT_EQ(report.rows[2].task_cells, Names{""});
    EXPECT_FALSE(report.rows[2].results.contains("tasks")) << "not measurable";
  }
}

TEST_F(EvaluateAgainTest, DamagedResultsOfTasksAreMeasuredAgain) {
  options_.tasks = {std::make_shared<NameTask>(false)};
  Run();
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    auto entry = nlohmann::json::parse(std::ifstream(file.path()));
    if (entry["key"]["part"] == "name" && entry["key"]["cache"] == "noise") entry["value"] = 5;
    std::ofstream(file.path()) << entry;
  }
  const auto task = std::make_shared<NameTask>(false);
  options_.tasks = {task};
  EXPECT_EQ(Run().rows[1].task_cells, Names{"is noise"});
  EXPECT_EQ(task->ran, Names{"noise"});
}

TEST_F(EvaluateAgainTest, TheReferenceRunsAgainOnlyForTasksThatCompare) {
  for (const bool needs_reference : {false, true}) {
    options_.caches = {"noise"};
    options_.tasks = {std::make_shared<NameTask>(needs_reference, needs_reference)};
    Run();
    options_.caches = {"blind"};
    const auto task = std::make_shared<NameTask>(needs_reference, needs_reference);
    options_.tasks = {task};
    Run();
    EXPECT_EQ(task->ran, needs_reference ? (Names{"f16", "blind"}) : Names{"blind"});
  }
}

TEST_F(EvaluateAgainTest, OtherOptionsOfATaskAreAnotherResult) {
  options_.tasks = {std::make_shared<NameTask>(false, 1)};
  Run();
  const auto chunked = std::make_shared<NameTask>(false, 1);
  EvaluateOptions chunks = options_;
  chunks.tasks = {chunked};
  chunks.text.batch += 1;
  ASSERT_TRUE(Evaluate(chunks, Text(), FakeRunner::Open, kSilent).ok());
  EXPECT_EQ(chunked->ran.size(), 3u);
  const auto task = std::make_shared<NameTask>(false, 2);
  options_.tasks = {task};
  Run();
  EXPECT_EQ(texts_, Names());
  EXPECT_EQ(task->ran, (Names{"f16", "noise", "blind"}));
}

}  // namespace
}  // namespace kvant
