#include "kvant/scheme.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "codec/calibrated.h"
#include "codec/registry.h"

namespace kvant {
namespace {

using ::testing::HasSubstr;

Scheme MustParse(std::string_view text) {
  const Result<Scheme> scheme = Scheme::Parse(text);
  EXPECT_TRUE(scheme.ok()) << text << ": " << scheme.status().message();
  return scheme.ok() ? *scheme : Scheme();
}

/// The message of the InvalidArgument that `text` must give.
std::string Refusal(std::string_view text) {
  const Result<Scheme> scheme = Scheme::Parse(text);
  if (scheme.ok()) return "accepted";
  EXPECT_EQ(scheme.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(scheme.status().message().find('\n'), std::string::npos);
  return scheme.status().message();
}

TEST(Scheme, ReadsEveryWord) {
  const Scheme scheme = MustParse(" k=raw:type=bf16\tv=raw:fp16 sink=8  recent=128\n");
  EXPECT_EQ(scheme.key.ToString(), "raw:type=bf16");
  EXPECT_EQ(scheme.value.ToString(), "raw:type=fp16");  // the unnamed value is the codec's first option
  EXPECT_EQ(scheme.sink_tokens, 8);
  EXPECT_EQ(scheme.recent_tokens, 128);
}

TEST(Scheme, CodecWordServesBothSidesAndLaterWordsOverride) {
  const Scheme both = MustParse("raw:bf16");
  EXPECT_EQ(both.key.ToString(), "raw:type=bf16");
  EXPECT_EQ(both.value.ToString(), "raw:type=bf16");
  EXPECT_EQ(both.sink_tokens, 4);
  EXPECT_EQ(MustParse("raw:type=bf16").key.ToString(), "raw:type=bf16");

  const Scheme mixed = MustParse("raw:bf16 v=raw sink=0");
  EXPECT_EQ(mixed.key.ToString(), "raw:type=bf16");
  EXPECT_EQ(mixed.value.ToString(), "raw");
  EXPECT_EQ(mixed.sink_tokens, 0);
}

TEST(Scheme, RecentDefaultsToWhatTheMethodsPrescribe) {
  for (const CodecInfo* key : AllCodecs()) {
    for (const CodecInfo* value : AllCodecs()) {
      if (!key->keys || !value->values) continue;
      const std::string text = "k=" + std::string(key->name) + " v=" + std::string(value->name);
      EXPECT_EQ(MustParse(text).recent_tokens, std::max(key->recent_tokens, value->recent_tokens)) << text;
      EXPECT_EQ(MustParse(text + " recent=7").recent_tokens, 7) << text;
    }
  }
}

TEST(Scheme, TextRoundTrip) {
  for (const std::string text : {"raw", "k=raw:bf16 v=raw sink=64 recent=65536", "raw:type= sink=0", "raw:type=a=b"}) {
    const Scheme scheme = MustParse(text);
    EXPECT_EQ(MustParse(scheme.ToString()).ToString(), scheme.ToString());
  }
  EXPECT_EQ(MustParse("raw").ToString(), "k=raw v=raw sink=4 recent=0");
}

TEST(Scheme, PresetsParseAndCanBeOverridden) {
  for (const Preset& preset : Presets()) {
    const Scheme scheme = MustParse(preset.name);
    EXPECT_EQ(scheme.ToString(), MustParse(preset.scheme).ToString());
    EXPECT_EQ(MustParse(std::string(preset.name) + " v=raw recent=64").ToString(),
              "k=" + scheme.key.ToString() + " v=raw sink=" + std::to_string(scheme.sink_tokens) + " recent=64");
  }
}

TEST(Scheme, TypicalSchemesShowEveryCodecAtFallingRates) {
  std::map<std::string, double> bits_of_last;
  for (const std::string& typical : TypicalSchemes()) {
    const Scheme scheme = MustParse(typical);
    double bits = 0;
    for (const Side side : {Side::kKey, Side::kValue}) {
      const CodecChoice& choice = side == Side::kKey ? scheme.key : scheme.value;
      const Result<Codec> codec = MakeCodec(choice.name, choice.options, {.side = side, .dim = 128});
      ASSERT_TRUE(codec.ok()) << typical << ": " << codec.status().message();
      bits += static_cast<double>(codec->block_bytes());
      const Result<SharedBases> bases = FindBases(*codec, choice.options, nullptr, 0, 1);
      EXPECT_EQ(bases.status().code() == StatusCode::kNotFound, codec->state->needs_calibration) << typical;
    }
    const std::string name = scheme.key.name == "raw" ? scheme.value.name : scheme.key.name;
    const auto [last, is_first] = bits_of_last.try_emplace(name, bits);
    EXPECT_LE(bits, last->second) << typical;
    last->second = bits;
  }
  EXPECT_EQ(bits_of_last.size(), AllCodecs().size());
}

TEST(Scheme, RefusalsNameTheWordAndWhatIsAccepted) {
  EXPECT_THAT(Refusal(""), HasSubstr("empty"));
  EXPECT_THAT(Refusal("  "), HasSubstr("kv4"));
  EXPECT_THAT(Refusal("kv5"), testing::AllOf(HasSubstr("'kv5'"), HasSubstr("kv4"), HasSubstr("raw")));
  EXPECT_THAT(Refusal("foo=1"), testing::AllOf(HasSubstr("'foo=1'"), HasSubstr("k=, v=, sink=, recent=")));
  EXPECT_THAT(Refusal("k=zip v=raw"), testing::AllOf(HasSubstr("codec 'zip'"), HasSubstr("raw")));
  EXPECT_THAT(Refusal("raw:bits=4"), testing::AllOf(HasSubstr("no option 'bits'"), HasSubstr("type")));
  EXPECT_THAT(Refusal("raw:type=fp16,type=bf16"), HasSubstr("'type' twice"));
  EXPECT_THAT(Refusal("raw:"), HasSubstr("'raw:' ends where an option should follow"));
  EXPECT_THAT(Refusal("raw:bf16,"), HasSubstr("'raw:bf16,' ends"));
  EXPECT_THAT(Refusal("k=raw"), HasSubstr("no codec for values"));
  EXPECT_THAT(Refusal("v=raw"), HasSubstr("no codec for keys"));
  EXPECT_THAT(Refusal("k=raw k=raw v=raw"), HasSubstr("'k=' is given twice"));
  EXPECT_THAT(Refusal("raw sink=1 sink=1"), HasSubstr("'sink=' is given twice"));
  EXPECT_THAT(Refusal("k=raw v=raw raw"), HasSubstr("'raw' must be the first word"));
  EXPECT_THAT(Refusal("raw raw"), HasSubstr("must be the first word"));
}

TEST(Scheme, SingleLayersMayDiffer) {
  const Scheme scheme = MustParse("raw v=int:8 k3=int:4 v0=int:2 layers=4");
  EXPECT_EQ(scheme.ToString(), "k=raw v=int:bits=8 sink=4 recent=0 k3=int:bits=4 v0=int:bits=2 layers=4");
  EXPECT_EQ(MustParse(scheme.ToString()).ToString(), scheme.ToString());
  EXPECT_EQ(scheme.Choice(3, true).ToString(), "int:bits=4");
  EXPECT_EQ(scheme.Choice(2, true).ToString(), "raw");
  EXPECT_EQ(scheme.Choice(0, false).ToString(), "int:bits=2");
  EXPECT_EQ(scheme.Choice(3, false).ToString(), "int:bits=8");
  EXPECT_EQ(scheme.Choices(true).size(), 2u);
  EXPECT_EQ(MustParse("raw k0=int:4 k1=int:4 layers=2").Choices(true).size(), 1u);  // no layer is left for raw
}

TEST(Scheme, LayersOfTheModelAreChecked) {
  EXPECT_TRUE(MustParse("raw k3=int:4").CheckLayers(4).ok());
  EXPECT_THAT(MustParse("raw k3=int:4").CheckLayers(3).message(),
              testing::AllOf(HasSubstr("'k3='"), HasSubstr("0..2")));
  EXPECT_TRUE(MustParse("raw layers=4").CheckLayers(4).ok());
  EXPECT_THAT(MustParse("raw layers=4").CheckLayers(5).message(),
              testing::AllOf(HasSubstr("4 layers"), HasSubstr("5")));
  EXPECT_THAT(Refusal("raw k4=raw layers=4"), testing::AllOf(HasSubstr("'k4='"), HasSubstr("0..3")));
  EXPECT_THAT(Refusal("raw k0=raw k0=int"), HasSubstr("'k0=' is given twice"));
  EXPECT_THAT(Refusal("raw k0=zip"), HasSubstr("codec 'zip'"));
  EXPECT_THAT(Refusal("raw v0=calibquant k0=int:4,"), HasSubstr("'int:4,' ends"));
  EXPECT_THAT(Refusal("raw k4096=raw"), testing::AllOf(HasSubstr("k4096"), HasSubstr("0..4095")));
  EXPECT_THAT(Refusal("raw k1x=raw"), HasSubstr("names no layer"));
  EXPECT_THAT(Refusal("raw layers=0"), HasSubstr("1..4096"));
}

TEST(Scheme, OfLayersTakesTheMostFrequentCodecsAsCommon) {
  const CodecChoice a = MustParse("raw").key, b = MustParse("int:4").key;
  const Scheme scheme =
      Scheme::OfLayers({{.key = a, .value = b}, {.key = b, .value = a}, {.key = b, .value = a}}, 8, 64);
  EXPECT_EQ(scheme.ToString(), "k=int:bits=4 v=raw sink=8 recent=64 k0=raw v0=int:bits=4 layers=3");
}

TEST(Scheme, TokenCountsAreBounded) {
  EXPECT_EQ(MustParse("raw sink=64").sink_tokens, 64);
  EXPECT_EQ(MustParse("raw recent=65536").recent_tokens, 65536);
  for (const char* word : {"sink=65", "sink=-1", "sink=", "sink=4x", "sink=1e1"}) {
    EXPECT_THAT(Refusal(std::string("raw ") + word), testing::AllOf(HasSubstr(word), HasSubstr("0..64"))) << word;
  }
  EXPECT_THAT(Refusal("raw recent=65537"), HasSubstr("0..65536"));
  EXPECT_THAT(Refusal("raw recent=99999999999999999999"), HasSubstr("0..65536"));
}

}  // namespace
}  // namespace kvant
