#include "tune/tuner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "eval/cache_cost.h"

namespace kvant {
namespace {

using ::testing::HasSubstr;

const std::vector<LayerShape> kLayers(4, {.kv_heads = 1, .k_dim = 64, .v_dim = 64});
/// What one layer's K (first) and V cost at the same rate, in any unit.
constexpr double kSensitivity[][2] = {{1, 8}, {2, 1}, {16, 2}, {1, 4}};
constexpr int kVocab = 50;

double Pseudo(uint64_t x) {
  x = (x + 1) * 6364136223846793005u;
  x = (x ^ x >> 31) * 1442695040888963407u;
  return static_cast<double>((x ^ x >> 29) >> 11) * 0x1p-53 - 0.5;
}

/// A model whose logits move by the root of what its layers cost: the codec's squared error on normal rows times the sensitivity. So
/// divergences add up; `interaction` makes layer 2's K cheaper when its V is exact.
class FakeModel : public Runner {
 public:
  FakeModel(const RunnerOptions& options, double interaction) : options_(options) {
    info_.vocab_size = kVocab;
    info_.layers = kLayers;
    if (options.cache == "f16") return;
    scheme_ = *Scheme::Parse(options.cache);
    double cost = 0;
    for (int layer = 0; layer < 4; ++layer) {
      for (const bool is_key : {true, false}) {
        const double own = kSensitivity[layer][!is_key] * std::pow(4.0, -Bits(layer, is_key));
        cost += layer == 2 && is_key && Bits(2, false) < 16 ? own * interaction : own;
      }
    }
    amplitude_ = std::sqrt(cost);
  }

  const ModelInfo& info() const override { return info_; }
  std::vector<int> Tokenize(std::string_view, bool) const override { return {}; }
  std::string Detokenize(int) const override { return ""; }
  bool IsEndOfGeneration(int) const override { return false; }
  Result<std::string> ApplyChatTemplate(std::string_view) const override { return Status::NotSupported("none"); }
  Status Decode(std::span<const int> tokens, bool) override {
    logits_.clear();
    for (const int token : tokens) {
      for (int i = 0; i < kVocab; ++i) {
        const auto at = static_cast<uint64_t>((held_ * 1009 + token) * kVocab + i);
        logits_.push_back(static_cast<float>(4 * Pseudo(at) + amplitude_ * Pseudo(at + (uint64_t{1} << 40))));
      }
      ++held_;
    }
    return Status::Ok();
  }
  std::span<const float> Logits(int i) const override {
    return {logits_.data() + static_cast<ptrdiff_t>(i) * kVocab, kVocab};
  }
  int64_t num_tokens() const override { return held_; }
  Status Truncate(int64_t) override { return Status::Ok(); }
  Result<std::vector<std::byte>> SaveState() override { return Status::NotSupported("none"); }
  Status LoadState(std::span<const std::byte>) override { return Status::NotSupported("none"); }
  CacheUse cache_use() const override {
    CacheUse use;
    use.footprint.by_kind[0] = CacheCost::Of(scheme_, kLayers)->BytesAt(held_);
    use.footprint.values = static_cast<size_t>(held_ * ValuesPerToken(kLayers));
    return use;
  }

 private:
  double Bits(int layer, bool is_key) const {
    const CodecChoice& choice = scheme_.Choice(layer, is_key);
    return choice.name == ExactChoice().name ? 16 : std::stod(choice.options.front().second);
  }
  const RunnerOptions options_;
  ModelInfo info_;
  Scheme scheme_;
  double amplitude_ = 0;
  int64_t held_ = 0;
  std::vector<float> logits_;
};

/// A tuner with its surroundings.
struct Bench {
  explicit Bench(const std::string& budget, double max_kl = 0) {
    options.layers = kLayers;
    options.candidates = *ParseCandidates({"int:2", "int:3", "int:4", "int:8"});
    if (!budget.empty()) options.budget = *Budget::Parse(budget);
    options.max_kl = max_kl;
    options.context = 1024;
  }

  Result<TuneResult> Run() {
    const OpenRunner open = [this](const RunnerOptions& o) -> Result<std::unique_ptr<Runner>> {
      ++opened;
      if (fail_after >= 0 && opened > fail_after) return Status::OutOfMemory("stopped");
      return std::unique_ptr<Runner>(new FakeModel(o, interaction));
    };
    const EvaluateProgress none = [](std::string_view, int64_t, int64_t) {};
    KlMeter tuning({.tokens = 256, .skip = 64, .key = "a"}, std::vector<int>(256, 3), open, none, &journal);
    KlMeter check({.tokens = 1024, .skip = 512, .key = "b"}, std::vector<int>(1024, 7), open, none, &journal);
    return Tuner(options, &tuning, &check, nullptr, [&](const std::string& line) { lines += line + "\n"; }).Run();
  }

  TunerOptions options;
  Journal journal = std::move(Journal::Open("")).value();
  double interaction = 1;
  int opened = 0;
  int fail_after = -1;
  std::string lines;
};

TEST(TunerTest, FindsTheBestPlanAndPredictsIt) {
  Bench bench("4.2bits");
  bench.options.validation_plans = 6;
  const Result<TuneResult> result = bench.Run();
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_THAT(bench.lines, HasSubstr("expected gain: 0.59"));
  const Plan& plan = result->plan;
  EXPECT_LE(static_cast<double>(result->bytes), result->limit_bytes);
  EXPECT_LE(plan.measured.bits_per_value, 4.2);
  EXPECT_NEAR(plan.predicted_bits_per_value, plan.measured.bits_per_value, 1e-9);
  EXPECT_NEAR(result->tuning_kl / plan.predicted_kl, 1, 0.05);
  EXPECT_FALSE(result->is_repaired);
  // The most sensitive gets more bits than the least.
  EXPECT_GT(plan.scheme.Choice(2, true).ToString(), plan.scheme.Choice(1, false).ToString());
  EXPECT_GT(result->uniform_kl, plan.measured.kl);
  EXPECT_GT(plan.tuning.validation_rank_correlation, 0.9);
  EXPECT_EQ(plan.tuning.validation.size(), 6u);
  EXPECT_EQ(plan.tuning.costs.size(), 8u * 5);
  EXPECT_EQ(plan.Layers().size(), 4u);
}

TEST(TunerTest, ABudgetForAContextHoldsOnTheWayThere) {
  Bench bench("1000 in 256KiB");
  bench.options.context = 1000;
  const Result<TuneResult> result = bench.Run();
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto cost = CacheCost::Of(result->plan.scheme, kLayers);
  EXPECT_LE(cost->PeakBytes(1000), size_t{256} << 10);
  EXPECT_GT(cost->PeakBytes(1000), size_t{240} << 10);
}

TEST(TunerTest, RefusesABudgetBelowTheSmallestPlanBeforeItMeasures) {
  Bench bench("2bits");
  const Result<TuneResult> result = bench.Run();
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  const size_t least = CacheCost::Of(*Scheme::Parse("int:2"), kLayers)->BytesAt(1024);
  EXPECT_THAT(result.status().message(), HasSubstr(StrFormat("takes %zu (", least)));
  EXPECT_EQ(bench.opened, 0);
  // What it names is accepted.
  EXPECT_TRUE(Bench(StrFormat("1024 in %zuB", least * 2)).Run().ok());
  EXPECT_TRUE(Bench(StrFormat("%.4f", 8.0 * static_cast<double>(least) / 1024 / 512 + 1e-4)).Run().ok());
}

TEST(TunerTest, MaxKlGivesTheSmallestPlanThatMeetsIt) {
  const Result<TuneResult> loose = Bench("", 0.01).Run(), tight = Bench("", 0.001).Run();
  ASSERT_TRUE(loose.ok() && tight.ok());
  EXPECT_LE(loose->plan.measured.kl, 0.01);
  EXPECT_LE(tight->plan.measured.kl, 0.001);
  EXPECT_LT(loose->bytes, tight->bytes);
}

TEST(TunerTest, ASecondPassRepairsInteractions) {
  Bench bench("4.6bits");
  bench.interaction = 8;
  const Result<TuneResult> result = bench.Run();
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_THAT(bench.lines, HasSubstr("second pass: what each layer")) << bench.lines << result->plan.ToString();
  EXPECT_TRUE(result->is_repaired);
  EXPECT_THAT(result->plan.scheme.Choice(2, true).ToString(), HasSubstr("bits=8"));
}

TEST(TunerTest, GoesOnWhereItWasStopped) {
  Bench whole("4bits");
  const Result<TuneResult> expected = whole.Run();
  ASSERT_TRUE(expected.ok());
  Bench stopped("4bits");
  stopped.fail_after = whole.opened / 2;
  EXPECT_EQ(stopped.Run().status().message(), "stopped");
  const int first = stopped.opened - 1;
  stopped.fail_after = -1;
  stopped.opened = 0;
  const Result<TuneResult> result = stopped.Run();
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->plan.Serialize(), expected->plan.Serialize());
  EXPECT_LE(first + stopped.opened, whole.opened + 2);  // the references again
  const int before = stopped.opened;
  EXPECT_TRUE(stopped.Run().ok());
  EXPECT_EQ(stopped.opened, before);
}

TEST(TunerTest, ATimeLimitBeforeTheProfileSaysHowFarItCame) {
  Bench bench("4bits");
  bench.options.time_limit_s = 1e-9;
  EXPECT_THAT(bench.Run().status().message(), HasSubstr("0 of 4 layers"));
}

}  // namespace
}  // namespace kvant
