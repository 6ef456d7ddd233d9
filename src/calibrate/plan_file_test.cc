#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "kvant/plan.h"

namespace kvant {
namespace {

using ::testing::HasSubstr;

Plan Small() {
  Plan plan;
  plan.kvant_version = "1.2.3";
  plan.model = "model.gguf";
  plan.model_hash = "abc";
  plan.scheme = *Scheme::Parse("k=raw v=int:4 k1=int:2 layers=3 sink=8 recent=64");
  plan.bits_per_value = 7.5;
  plan.bytes_per_token = 96;
  plan.measured = {.text = "t.txt", .tokens = 100, .kl = 0.25, .kl_stderr = 0.01, .bits_per_value = 7.75};
  plan.predicted_kl = 0.2;
  plan.predicted_bits_per_value = 7.7;
  plan.uniform = {{.cache = "kv4", .kl = 0.5, .bits_per_value = 4.5}};
  plan.tuning = {.text = "u.txt",
                 .tokens = 50,
                 .expected_gain = 0.9,
                 .floor_kl = 0.001,
                 .candidates = {"raw", "int:bits=2"},
                 .costs = {{.layer = 2,
                            .is_key = false,
                            .candidate = 1,
                            .kl = 0.125,
                            .bits_per_value = 2.5,
                            .attention_error = 0.3,
                            .is_measured = false}},
                 .proxy_rank_correlation = 0.75,
                 .validation = {{.predicted_kl = 1, .measured_kl = 2}},
                 .validation_rank_correlation = 0.5};
  return plan;
}

/// The message of the plan that `from` replaced by `to` makes of a good one.
std::string Refusal(const std::string& from, const std::string& to, StatusCode code = StatusCode::kCorruption) {
  std::string text = Small().Serialize();
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  const Result<Plan> plan = Plan::Parse(text.replace(at, from.size(), to), "p.json");
  if (plan.ok()) return "accepted";
  EXPECT_EQ(plan.status().code(), code);
  EXPECT_THAT(plan.status().message(), testing::StartsWith("p.json: "));
  EXPECT_EQ(plan.status().message().find('\n'), std::string::npos);
  return plan.status().message();
}

TEST(PlanFileTest, ComesBackWhole) {
  const std::string text = Small().Serialize();
  const Result<Plan> plan = Plan::Parse(text, "p.json");
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->Serialize(), text);
  EXPECT_EQ(plan->scheme.ToString(), "k=raw v=int:bits=4 sink=8 recent=64 k1=int:bits=2 layers=3");
  EXPECT_EQ(plan->tuning.costs.front().kl, 0.125);
  EXPECT_FALSE(plan->tuning.costs.front().is_key);
  EXPECT_EQ(plan->Layers()[1].key.ToString(), "int:bits=2");
}

TEST(PlanFileTest, RefusalsNameWhatIsWrong) {
  EXPECT_THAT(Refusal("kvant-plan", "other"), HasSubstr("not a plan"));
  EXPECT_THAT(Refusal("{", "["), HasSubstr("not a plan"));
  EXPECT_THAT(Refusal("\"format_version\": 1", "\"format_version\": 9", StatusCode::kNotSupported),
              HasSubstr("accepted: 1"));
  EXPECT_THAT(Refusal("k=raw v=int", "k=zip v=int"), testing::AllOf(HasSubstr("layer 0"), HasSubstr("'zip'")));
  EXPECT_THAT(Refusal("k=raw v=int:bits=4", "k=raw v=raw k3=raw"), HasSubstr("speaks of other layers"));
  EXPECT_THAT(Refusal("\"sink\": 8", "\"sink\": 65"), HasSubstr("sink=65"));
  EXPECT_THAT(Refusal("\"sink\": 8", "\"sink\": \"8\""), HasSubstr("sink is not a whole number"));
  EXPECT_THAT(Refusal("\"model_hash\": \"abc\"", "\"model_hash\": \"\""), HasSubstr("no model_hash"));
  EXPECT_THAT(Refusal("\"layers\"", "\"strata\""), HasSubstr("no list of layers"));
  EXPECT_THAT(Refusal("\"tokens\": 50", "\"tokens\": true"), HasSubstr("tuning.tokens"));
}

TEST(PlanFileTest, IsForOneModel) {
  EXPECT_TRUE(Small().CheckModel("abc", "p.json").ok());
  EXPECT_THAT(Small().CheckModel("def", "p.json").message(),
              testing::AllOf(HasSubstr("p.json"), HasSubstr("abc"), HasSubstr("def")));
}

TEST(PlanFileTest, ReadSchemeTakesTextOrAFile) {
  EXPECT_EQ(ReadScheme("raw")->ToString(), "k=raw v=raw sink=4 recent=0");
  EXPECT_EQ(ReadScheme("no/such.json").status().code(), StatusCode::kNotFound);
  const std::string path = testing::TempDir() + "kvant_plan_file_test.json";
  std::ofstream(path) << Small().Serialize();
  EXPECT_EQ(ReadScheme(path)->ToString(), Small().ToString());
  EXPECT_EQ(ReadScheme(testing::TempDir() + ".json").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace kvant
