#include "codec/calibrated.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/registry.h"

namespace kvant {
namespace {

using testing::HasSubstr;

constexpr const char* kName = "decoquant";

Codec Make(const std::string& options, Side side = Side::kKey) {
  const CodecInfo* info = FindCodec(kName);
  Result<Codec> codec = MakeCodec(kName, *ParseCodecOptions(*info, options), {.side = side, .dim = 64});
  EXPECT_TRUE(codec.ok()) << codec.status().message();
  return *codec;
}

std::string Key(const std::string& options) {
  const CodecInfo* info = FindCodec(kName);
  return CalibrationKey(*info, *ParseCodecOptions(*info, options));
}

Result<SharedBases> Find(const std::string& options, const Calibration* calibration, int layer = 0, int heads = 2) {
  const Codec codec = Make(options);
  return FindBases(codec, *ParseCodecOptions(*codec.info, options), calibration, layer, heads);
}

// Two bases for layer 3 K.
std::shared_ptr<const Calibration> Sample(const std::string& options) {
  const size_t bytes = 2 * Make(options).state->basis_bytes;
  return Calibration::Of("a.safetensors", {},
                         {{.codec = Key(options),
                           .is_key = true,
                           .layer = 3,
                           .num_bases = 2,
                           .bytes = std::vector<std::byte>(bytes, std::byte{7})}});
}

TEST(CalibrationKey, HasAllOptionsThatDecideABasisInTheirShortestForm) {
  EXPECT_EQ(Key("3,gauge=klt"), Key("gauge=klt,bits=3.0"));
  EXPECT_EQ(Key("3,gauge=klt,fit=64,refit=0,scale=ls"), Key("3,gauge=klt"));
  EXPECT_NE(Key("3,gauge=klt,code=trellis"), Key("3,gauge=klt"));
  EXPECT_THAT(Key("2.125,gauge=klt"), HasSubstr("decoquant:bits=2.125,gauge=klt,code=auto"));
  // A key parses back to itself.
  const std::string key = Key("3,gauge=klt");
  EXPECT_EQ(Key(key.substr(key.find(':') + 1)), key);
}

TEST(CalibrationKey, MakesTheSameCodec) {
  for (const CodecInfo* info : AllCodecs()) {
    for (const Expectation& e : info->expectations) {
      const CodecOptions options = *ParseCodecOptions(*info, e.options);
      const BlockShape shape = {.side = e.side, .dim = 128};
      const auto made = MakeCodec(info->name, options, shape);
      if (!made.ok() || made->state->basis_bytes == 0) continue;
      const std::string key = CalibrationKey(*info, options);
      const auto read = ParseCodecOptions(*info, key.substr(std::min(key.size(), key.find(':') + 1)));
      ASSERT_TRUE(read.ok()) << key;
      const auto again = MakeCodec(info->name, *read, shape);
      ASSERT_TRUE(again.ok()) << key;
      EXPECT_EQ(again->state->basis_bytes, made->state->basis_bytes) << key;
      EXPECT_EQ(CalibrationKey(*info, *read), key);
    }
  }
}

TEST(FindBases, GivesTheEntryOfTheLayer) {
  const auto calibration = Sample("3,gauge=klt");
  const auto found = Find("3,gauge=klt,refit=0", calibration.get(), 3);
  ASSERT_TRUE(found.ok()) << found.status().message();
  ASSERT_NE(*found, nullptr);
  EXPECT_EQ((*found)->size(), 2 * Make("3,gauge=klt").state->basis_bytes);
}

TEST(FindBases, IsEmptyWhereACodecFitsItsOwn) {
  const auto calibration = Sample("3,gauge=klt");
  for (const char* options : {"3", "4,gauge=klt"}) {
    const auto found = Find(options, calibration.get(), 3);
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(*found, nullptr) << options;
  }
  EXPECT_EQ(*Find("3,gauge=klt", calibration.get(), 2), nullptr);
  EXPECT_EQ(*Find("3,gauge=klt", nullptr), nullptr);
}

TEST(FindBases, SaysHowToMakeWhatIsMissing) {
  const std::string options = "3,gauge=klt,metric=model";
  const Status without = Find(options, nullptr).status();
  EXPECT_EQ(without.code(), StatusCode::kNotFound);
  EXPECT_THAT(without.message(), HasSubstr("layer 0 K"));
  EXPECT_THAT(without.message(), HasSubstr("kvant calibrate MODEL --text FILE --codec " + Key(options)));
  const Status other = Find(options, Sample("3,gauge=klt").get(), 3).status();
  EXPECT_EQ(other.code(), StatusCode::kNotFound);
  EXPECT_THAT(other.message(), HasSubstr("a.safetensors has no entry"));
}

TEST(FindBases, RefusesEntriesOfOtherSizes) {
  const Status status = Find("3,gauge=klt", Sample("3,gauge=klt").get(), 3, 4).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("2 bases"));
}

}  // namespace
}  // namespace kvant
