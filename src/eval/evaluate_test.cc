#include "eval/evaluate.h"

#include <gtest/gtest.h>

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
          .tokens = 1024,
          .batch = 100,
          .needles = 3};
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
  other.batch = 1000;
  other.scored_batch = 33;
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
  options.tokens = 9000;
  EXPECT_EQ(Evaluate(options, Text(), FakeRunner::Open, kSilent).status().message(),
            "tokens 9000 is not accepted: the model's context is 8192; accepted: up to 8128");
  options.tokens = 4096;
  EXPECT_NE(Evaluate(options, Text(), FakeRunner::Open, kSilent).status().message().find("too few for 4096"),
            std::string::npos);
  options = Options();
  options.skip = 1023;
  EXPECT_EQ(Evaluate(options, Text(), FakeRunner::Open, kSilent).status().message(),
            "skip 1023 is not accepted; accepted: 1..1022");
}

}  // namespace
}  // namespace kvant
