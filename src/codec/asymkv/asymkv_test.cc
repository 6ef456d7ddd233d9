#include "codec/asymkv/asymkv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/aligned_buffer.h"
#include "codec/registry.h"
#include "codec/test_rows.h"

namespace kvant::asymkv {
namespace {

using testing::HasSubstr;

Result<Codec> Make(std::string_view options, const BlockShape& shape) {
  const Result<CodecOptions> parsed = ParseCodecOptions(kInfo, options);
  if (!parsed.ok()) return parsed.status();
  return MakeCodec("asymkv", *parsed, shape);
}

AlignedBuffer<std::byte> Encode(const Codec& codec, const AlignedBuffer<float>& rows) {
  AlignedBuffer<std::byte> block(codec.block_bytes());
  EXPECT_TRUE(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).ok());
  return block;
}

AlignedBuffer<float> Decode(const Codec& codec, const AlignedBuffer<std::byte>& block) {
  AlignedBuffer<float> rows(static_cast<size_t>(64 * codec.shape().dim));
  EXPECT_TRUE(codec.verbs.decode(*codec.state, {}, block.data(), rows.data()).ok());
  return rows;
}

/// Mean squared error on unit normal rows, over 40 blocks.
double SquaredError(std::string_view options, Side side, float offset = 0.0f) {
  const Codec codec = *Make(options, {.side = side, .dim = 128});
  double sum = 0;
  size_t count = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    const AlignedBuffer<float> rows = NormalRows(64, 128, seed, offset);
    const AlignedBuffer<float> decoded = Decode(codec, Encode(codec, rows));
    for (size_t i = 0; i < rows.size(); ++i) sum += std::pow(static_cast<double>(rows[i] - decoded[i]), 2);
    count += rows.size();
  }
  return sum / static_cast<double>(count);
}

/// Bits per value of the streams of one kind, and of whole blocks, over K and V of a model.
struct ModelBits {
  double codes = 0;
  double all = 0;
};
ModelBits BitsOfModel(std::string_view key_options, std::string_view value_options, int num_layers) {
  ModelBits bits;
  for (int layer = 0; layer < num_layers; ++layer) {
    for (Side side : {Side::kKey, Side::kValue}) {
      const Codec codec = *Make(side == Side::kKey ? key_options : value_options,
                                {.side = side, .dim = 128, .layer = layer, .num_layers = num_layers});
      const double per_byte = 8.0 / (64 * 128) / (2 * num_layers);
      for (const Stream& stream : codec.state->layout.streams()) {
        if (stream.kind == StreamKind::kCodes) bits.codes += per_byte * static_cast<double>(stream.bytes);
      }
      bits.all += per_byte * static_cast<double>(codec.block_bytes());
    }
  }
  return bits;
}

TEST(AsymKv, HandComputedKeyBlock) {
  const Result<Codec> codec = Make("spread=1", {.side = Side::kKey, .dim = 16});
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  ASSERT_EQ(codec->block_bytes(), 128u + 2 * 16 * 2 + 2 * 16 * 2);
  // Channel c is c + 1 in even tokens and c - 1 in odd ones, and 8 more from token 32: mean c, distance 1.
  AlignedBuffer<float> rows(64 * 16);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 16; ++c) {
      rows[t * 16 + c] = static_cast<float>(c + t / 32 * 8) + (t % 2 == 0 ? 1.0f : -1.0f);
    }
  }
  const AlignedBuffer<std::byte> block = Encode(*codec, rows);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  // Byte k holds codes k, 128 + k, ..., all of them of a token with the parity of k / 4.
  for (size_t k = 0; k < 128; ++k) ASSERT_EQ(bytes[k], k / 4 % 2 == 0 ? 0xFF : 0x00) << k;
  const auto* scales = reinterpret_cast<const uint16_t*>(bytes + 128);
  const auto* mins = scales + 32;
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(scales[i], 0x4000) << i;  // 2
  EXPECT_EQ(mins[0], 0xBC00);                                         // -1
  EXPECT_EQ(mins[15], 0x4B00);                                        // 14
  EXPECT_EQ(mins[16], 0x4700);                                        // 7: channel 0, second group
}

// The power of the rows is 1: extremes lose more than a block of zeros would.
TEST(AsymKv, LevelsOfOneBit) {
  for (Side side : {Side::kKey, Side::kValue}) {
    EXPECT_NEAR(SquaredError("levels=extremes", side), 1.961, 0.03);
    EXPECT_NEAR(SquaredError("spread=1", side), 0.341, 0.003);
    EXPECT_NEAR(SquaredError("spread=1", side, 2.0f), 0.341, 0.003) << "an offset of all values must not matter";
    EXPECT_NEAR(SquaredError("group=64,spread=1", side), 0.349, 0.004);
    EXPECT_NEAR(SquaredError("layers=1", side), 0.152, 0.003);
  }
}

TEST(AsymKv, BitsAreThoseOfThePaper) {
  struct Case {
    const char *keys, *values;
    double payload, effective;
  };
  for (const Case& c : {Case{"layers=16", "layers=0", 1.25, 2.25}, Case{"layers=32", "layers=0", 1.5, 2.5},
                        Case{"layers=32", "layers=12", 1.6875, 2.6875}, Case{"layers=32", "layers=32", 2.0, 3.0},
                        Case{"", "", 1.25, 2.25}}) {
    const ModelBits bits = BitsOfModel(c.keys, c.values, 32);
    EXPECT_DOUBLE_EQ(bits.codes, c.payload) << c.keys << ' ' << c.values;
    EXPECT_DOUBLE_EQ(bits.all, c.effective) << c.keys << ' ' << c.values;
  }
}

TEST(AsymKv, FirstLayersAreKivi) {
  const BlockShape shape = {.side = Side::kKey, .dim = 128, .layer = 3, .num_layers = 8};
  const Codec first = *Make("layers=4", shape);
  const Codec kivi = *MakeCodec("kivi", {}, shape);
  const AlignedBuffer<float> rows = NormalRows(64, 128, 1);
  EXPECT_THAT(Encode(first, rows).span(), testing::ElementsAreArray(Encode(kivi, rows).span()));
  EXPECT_EQ(Make("layers=3", shape)->block_bytes(), kivi.block_bytes() * 2 / 3);
}

TEST(AsymKv, ConstantGroupsAreExact) {
  for (Side side : {Side::kKey, Side::kValue}) {
    const Codec codec = *Make("", {.side = side, .dim = 64});
    for (float value : {0.0f, 1.5f, -60000.0f}) {
      AlignedBuffer<float> rows(64 * 64);
      for (float& v : rows.span()) v = value;
      EXPECT_THAT(Decode(codec, Encode(codec, rows)).span(), testing::Each(value)) << value;
    }
  }
}

TEST(AsymKv, PrescribesTheResidualWindowOfThePaper) { EXPECT_EQ(kInfo.recent_tokens, 128); }

TEST(AsymKv, RefusesWhatItCannotDo) {
  const auto message = [](std::string_view options, int dim = 128) {
    return Make(options, {.side = Side::kValue, .dim = dim}).status().message();
  };
  EXPECT_EQ(message("layers=-1"), "codec asymkv: layers=-1 is not accepted; accepted: auto, 0..1000");
  EXPECT_EQ(message("high=3"), "codec asymkv: high=3 is not accepted; accepted: 2, 4");
  EXPECT_EQ(message("low=0"), "codec asymkv: low=0 is not accepted; accepted: 1, 2");
  EXPECT_THAT(message("levels=lloyd"), HasSubstr("accepted: spread, extremes"));
  EXPECT_THAT(message("spread=0.3"), HasSubstr("accepted: 0.5..3 in steps of 0.05"));
  EXPECT_THAT(message("group=64", 96), HasSubstr("since it does not divide the head size 96"));
  EXPECT_THAT(message("", 80), HasSubstr("multiple of 32, not 80"));
}

}  // namespace
}  // namespace kvant::asymkv
