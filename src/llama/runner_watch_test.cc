// What a watcher is shown while a model works, and what is read from its file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "llama/runner.h"
#include "llama/test_model.h"

namespace kvant {
namespace {

using testing::HasSubstr;

constexpr int kDim = 128;
constexpr int kTokens = 32;

/// Keeps all rows of layers 0 and 11.
class Recorder : public RowWatcher {
 public:
  bool Wants(RowKind) const override { return true; }
  void Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) override {
    widths[kind] = width;
    layers[kind] = std::max(layers[kind], layer + 1);
    if (layer != 0 && layer != 11) return;
    std::vector<float>& all = values[{kind, layer}];
    for (int64_t i = 0; i < count; ++i, rows += stride) all.insert(all.end(), rows, rows + width);
  }
  std::map<RowKind, int> widths;
  std::map<RowKind, int> layers;
  std::map<std::pair<RowKind, int>, std::vector<float>> values;
};

/// Feeds the test text twice: the first time teaches the watch the graph.
std::vector<int> Feed(Recorder& recorder) {
  Result<std::unique_ptr<Runner>> runner =
      Runner::Open({.model_path = TestModel(), .context = 64, .batch = 16, .maybe_watcher = &recorder});
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  std::vector<int> tokens = (*runner)->Tokenize(TestText(), true);
  tokens.resize(kTokens);
  EXPECT_TRUE((*runner)->Decode(std::span(tokens).first(16), false).ok());
  EXPECT_TRUE((*runner)->Truncate(0).ok());
  recorder.values.clear();
  EXPECT_TRUE((*runner)->Decode(tokens, false).ok());
  return tokens;
}

TEST(NodeWatch, ShowsEveryRowOfEveryLayer) {
  KVANT_NEED_MODEL();
  Recorder recorder;
  Feed(recorder);
  for (const RowKind kind : {RowKind::kKey, RowKind::kKeyBeforeRope, RowKind::kValue}) {
    EXPECT_EQ(recorder.widths[kind], 2 * kDim);
    EXPECT_EQ(recorder.layers[kind], 12);
    EXPECT_EQ((recorder.values[{kind, 0}].size()), size_t{kTokens * 2 * kDim});
  }
  EXPECT_EQ(recorder.widths[RowKind::kQuery], 8 * kDim);
  EXPECT_EQ((recorder.values[{RowKind::kQuery, 11}].size()), size_t{kTokens * 8 * kDim});
}

// The model's RoPE (llama: neighbouring channels are a pair, base 500,000), turned by hand.
TEST(NodeWatch, KeysBeforeRopeBecomeTheKeys) {
  KVANT_NEED_MODEL();
  Recorder recorder;
  Feed(recorder);
  for (const int layer : {0, 11}) {
    const std::vector<float>& before = recorder.values[{RowKind::kKeyBeforeRope, layer}];
    const std::vector<float>& after = recorder.values[{RowKind::kKey, layer}];
    ASSERT_EQ(before.size(), after.size());
    double distance = 0.0, norm = 0.0, moved = 0.0;
    for (size_t i = 0; i < before.size(); i += 2) {
      const double pos = static_cast<double>(i / (2 * kDim));
      const double angle = pos * std::pow(500000.0, -static_cast<double>(i % kDim) / kDim);
      const double a = static_cast<double>(before[i]), b = static_cast<double>(before[i + 1]);
      distance += std::pow(a * std::cos(angle) - b * std::sin(angle) - static_cast<double>(after[i]), 2) +
                  std::pow(a * std::sin(angle) + b * std::cos(angle) - static_cast<double>(after[i + 1]), 2);
      norm += a * a + b * b;
      moved += std::pow(a - static_cast<double>(after[i]), 2);
    }
    EXPECT_LT(std::sqrt(distance / norm), 1e-4) << layer;
    EXPECT_GT(std::sqrt(moved / norm), 0.05) << layer;
  }
}

TEST(NodeWatch, WatchingChangesNothing) {
  KVANT_NEED_MODEL();
  Recorder first, second;
  const std::vector<int> tokens = Feed(first);
  Feed(second);
  EXPECT_EQ(first.values, second.values);  // and is the same in every run
  Recorder recorder;
  std::vector<float> logits[2];
  for (RowWatcher* watcher : {static_cast<RowWatcher*>(nullptr), static_cast<RowWatcher*>(&recorder)}) {
    auto runner = Runner::Open(
        {.model_path = TestModel(), .device = "cpu", .context = 64, .batch = 16, .maybe_watcher = watcher});
    ASSERT_TRUE(runner.ok() && (*runner)->Decode(tokens, false).ok());
    const std::span<const float> row = (*runner)->Logits(-1);
    logits[watcher != nullptr].assign(row.begin(), row.end());
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(NodeWatch, NeedsTheStockCache) {
  KVANT_NEED_MODEL();
  Recorder recorder;
  const auto runner = Runner::Open({.model_path = TestModel(), .cache = "int:4", .maybe_watcher = &recorder});
  EXPECT_EQ(runner.status().code(), StatusCode::kInvalidArgument);
}

TEST(RunnerWeights, HashTellsModelsApart) {
  KVANT_NEED_MODEL();
  const Result<std::string> hash = Runner::HashModel(TestModel());
  ASSERT_TRUE(hash.ok()) << hash.status().message();
  EXPECT_EQ(hash->size(), 32u);
  EXPECT_EQ(*hash, *Runner::HashModel(TestModel()));
  EXPECT_THAT(Runner::HashModel("no.gguf").status().message(), HasSubstr("no.gguf"));
}

TEST(RunnerWeights, ShowsTheOutputProjections) {
  KVANT_NEED_MODEL();
  Recorder recorder;
  const Status status = Runner::ShowOutputWeights(TestModel(), &recorder);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(recorder.widths[RowKind::kOutput], 8 * kDim);
  EXPECT_EQ(recorder.layers[RowKind::kOutput], 12);
  const std::vector<float>& rows = recorder.values[{RowKind::kOutput, 0}];
  ASSERT_EQ(rows.size(), size_t{384 * 8 * kDim});
  double energy = 0.0;
  for (const float value : rows) energy += static_cast<double>(value) * static_cast<double>(value);
  EXPECT_GT(energy / static_cast<double>(rows.size()), 1e-6);
  EXPECT_LT(energy / static_cast<double>(rows.size()), 1.0);
}

}  // namespace
}  // namespace kvant
