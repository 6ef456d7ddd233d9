#include "eval/result_key.h"

#include <gtest/gtest.h>

#include "kvant/scheme.h"

namespace kvant {
namespace {

nlohmann::json KeyOf(const std::string& cache, const Calibration* maybe_calibration = nullptr) {
  return ResultKey({.kvant_version = "1",
                    .environment = {"cpu", "system", "program"},
                    .model_hash = "model",
                    .cache = cache,
                    .threads = 2,
                    .maybe_calibration = maybe_calibration},
                   "text", {{"tokens", 10}});
}

TEST(ResultKeyTest, HasAllThatAResultDependsOn) {
  const nlohmann::json key = KeyOf("llama:q8_0");
  const nlohmann::json expected = {
      {"kvant_version", "1"}, {"program", "program"},       {"cpu", "cpu"},          {"device", "CPU"},
      {"threads", 2},         {"model", "model"},           {"cache", "llama:q8_0"}, {"calibration", ""},
      {"part", "text"},       {"options", {{"tokens", 10}}}};
  EXPECT_EQ(key, expected);
}

TEST(ResultKeyTest, PresetsAndTheirSchemesAreTheSame) {
  for (const Preset& preset : Presets()) {
    EXPECT_EQ(KeyOf(std::string(preset.name)), KeyOf(std::string(preset.scheme)));
  }
  EXPECT_NE(KeyOf("int:4"), KeyOf("int:4 sink=0"));
}

TEST(ResultKeyTest, CalibrationsCountWhereBasesAre) {
  const auto a = Calibration::Of(
      "a", {.kvant_version = "1", .model_hash = "m", .model_description = "", .layers = {}, .texts = {}}, {});
  const auto b = Calibration::Of(
      "b", {.kvant_version = "2", .model_hash = "m", .model_description = "", .layers = {}, .texts = {}}, {});
  EXPECT_EQ(KeyOf("int:4", a.get()), KeyOf("int:4"));
  EXPECT_NE(KeyOf("kvquant:4", a.get()), KeyOf("kvquant:4"));
  EXPECT_NE(KeyOf("kvquant:4", a.get()), KeyOf("kvquant:4", b.get()));
}

}  // namespace
}  // namespace kvant
