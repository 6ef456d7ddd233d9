#include "eval/attention_error.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "eval/distortion.h"
#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

const LayerShape kShape = {.kv_heads = 2, .k_dim = 64, .v_dim = 64};
constexpr int64_t kTokens = 384;
constexpr int kWidth = 2 * 64, kQueryWidth = 4 * 64;

/// Normal rows, with queries times `query_scale`.
void Fill(RowWatcher& watcher, int layer, float query_scale, uint64_t seed = 1) {
  const auto values = NormalValues(static_cast<size_t>(kTokens * kQueryWidth), seed);
  std::vector<float> queries = values;
  for (float& q : queries) q *= query_scale;
  const auto add = [&](RowKind kind, int width, const float* rows) {
    watcher.Add(kind, layer, 100, width, rows, static_cast<size_t>(width));
    watcher.Add(kind, layer, kTokens - 100, width, rows + 100 * width, static_cast<size_t>(width));
  };
  add(RowKind::kKey, kWidth, values.data());
  add(RowKind::kValue, kWidth, values.data() + values.size() / 2);
  add(RowKind::kQuery, kQueryWidth, queries.data());
}

std::vector<double> ErrorsOf(const AttentionSample& sample, const char* scheme) {
  const auto errors = sample.Errors(*Scheme::Parse(scheme), nullptr);
  EXPECT_TRUE(errors.ok()) << errors.status().message();
  return errors.ok() ? *errors : std::vector<double>();
}

TEST(AttentionSampleTest, ErrorsFollowTheBits) {
  AttentionSample sample({kShape, kShape}, kTokens);
  Fill(sample, 0, 0.1f);
  Fill(sample, 1, 0.1f, 2);
  EXPECT_EQ(ErrorsOf(sample, "k=raw v=raw"), (std::vector<double>{0, 0}));
  double last = 0;
  for (const char* scheme : {"int:8", "int:4", "int:2"}) {
    const std::vector<double> errors = ErrorsOf(sample, scheme);
    ASSERT_EQ(errors.size(), 2u);
    EXPECT_GT(errors[0], 2 * last) << scheme;
    EXPECT_NEAR(errors[1] / errors[0], 1.0, 0.3) << scheme;
    last = errors[0];
  }
  EXPECT_LT(last, 1.0);
}

// Queries of zero weigh all rows alike: keys do not matter, and errors of values average out like the values themselves.
TEST(AttentionSampleTest, EqualWeightsMakeTheErrorThatOfTheValues) {
  AttentionSample sample({kShape}, kTokens);
  Fill(sample, 0, 0.0f);
  EXPECT_EQ(ErrorsOf(sample, "k=int:2 v=raw")[0], 0.0);
  const Result<Codec> codec = MakeCodec("int", {{"bits", "4"}}, {.side = Side::kValue, .dim = 64});
  const double of_rows = MeasureDistortion(*codec, 16, 1)->relative_error;
  const double coded = std::sqrt(4.5 / 5.0);  // on average 4.5 of 5 pages are sealed when a query comes
  EXPECT_NEAR(ErrorsOf(sample, "k=raw v=int:4 sink=0")[0] / (of_rows * coded), 1.0, 0.25);
}

TEST(AttentionSampleTest, LayersHaveTheirOwnCodecs) {
  AttentionSample sample({kShape, kShape}, kTokens);
  Fill(sample, 0, 0.1f);
  Fill(sample, 1, 0.1f);
  const std::vector<double> errors = ErrorsOf(sample, "raw v1=int:2");
  EXPECT_EQ(errors[0], 0.0);
  EXPECT_EQ(errors[1], ErrorsOf(sample, "k=raw v=int:2")[1]);
}

TEST(AttentionSampleTest, MissingRowsAreNamed) {
  AttentionSample sample({kShape, kShape}, kTokens);
  Fill(sample, 0, 1.0f);
  const auto errors = sample.Errors(*Scheme::Parse("int:4"), nullptr);
  EXPECT_EQ(errors.status().message(), "the model showed no rows of layer 1, or not all");
}

TEST(AttentionErrorTest, WatchesTheReferenceAndComparesSchemes) {
  const std::string text = test::SomeText(kTokens + 50);
  const auto task = MakeAttentionError({}, text, "a.txt");
  ASSERT_TRUE(test::Prepare(*task).ok());
  const OpenRunner open = [](const RunnerOptions& options) {
    EXPECT_EQ(options.context, kTokens);
    if (options.maybe_watcher != nullptr) Fill(*options.maybe_watcher, 0, 0.1f);
    return FakeRunner::Open(options);
  };
  EXPECT_EQ(*task->Run(test::RunOf("f16", open)), Json({0.0}));
  const auto result = task->Run(test::RunOf("int:4", open));
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_GT((*result)[0].get<double>(), 0.01);
  EXPECT_EQ(task->Show(Json{0.25, 0.75}), "0.5000");
  EXPECT_TRUE(task->Run(test::RunOf("llama:q8_0", open))->is_null());
  EXPECT_TRUE(task->Run(test::RunOf("k=kvquant:4 v=int:4", open))->is_null())
      << "it needs keys as they were before RoPE";
}

TEST(AttentionErrorTest, RefusesAShortText) {
  const std::string text = test::SomeText(100);
  EXPECT_EQ(test::Prepare(*MakeAttentionError({}, text, "a.txt")).message(),
            "attention-error: a.txt has 101 tokens, at least 128 are needed");
}

}  // namespace
}  // namespace kvant
