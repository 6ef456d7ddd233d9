#include "codec/int/int.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/aligned_buffer.h"
#include "base/float16.h"
#include "codec/registry.h"

namespace kvant::integer {
namespace {

using testing::HasSubstr;

Result<Codec> Make(std::string_view options, Side side, int dim) {
  const Result<CodecOptions> parsed = ParseCodecOptions(kInfo, options);
  if (!parsed.ok()) return parsed.status();
  return MakeCodec("int", *parsed, {.side = side, .dim = dim});
}

size_t StreamBytes(const Codec& codec, std::string_view name) {
  for (const Stream& stream : codec.state->layout.streams()) {
    if (stream.name == name) return stream.bytes;
  }
  return 0;
}

TEST(Int, HandComputedBlock) {
  // 4-bit token groups of 32 channels; token t holds t/2 + 0.25 c for c = 0..15, then t/2 + 1 in all others.
  const Result<Codec> codec = Make("4,axis=token,group=32", Side::kKey, 32);
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  ASSERT_EQ(codec->block_bytes(), 1024u + 128u + 128u);
  AlignedBuffer<float> rows(64 * 32);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 32; ++c) {
      rows[t * 32 + c] = 0.5f * static_cast<float>(t) + (c < 16 ? 0.25f * static_cast<float>(c) : 1.0f);
    }
  }
  AlignedBuffer<std::byte> block(codec->block_bytes());
  ASSERT_TRUE(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).ok());
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  // Tile 0: code = c. Byte 4 t + i holds channel i in the low field (quad 0), channel 8 + i in the high (quad
  // 2); the next 256 bytes channels 4 + i and 12 + i.
  const uint8_t kQuads02[] = {0x80, 0x91, 0xA2, 0xB3};
  const uint8_t kQuads13[] = {0xC4, 0xD5, 0xE6, 0xF7};
  for (size_t k = 0; k < 256; ++k) {
    ASSERT_EQ(bytes[k], kQuads02[k % 4]) << k;
    ASSERT_EQ(bytes[256 + k], kQuads13[k % 4]) << k;
  }
  for (size_t k = 512; k < 1024; ++k) ASSERT_EQ(bytes[k], 0x44) << k;  // tile 1: 1 is code 4
  const auto* scales = reinterpret_cast<const uint16_t*>(bytes + 1024);
  const auto* mins = scales + 64;
  for (size_t t = 0; t < 64; ++t) EXPECT_EQ(scales[t], 0x3400) << t;  // 0.25
  EXPECT_EQ(mins[0], 0x0000);
  EXPECT_EQ(mins[1], 0x3800);   // 0.5
  EXPECT_EQ(mins[3], 0x3E00);   // 1.5
  EXPECT_EQ(mins[63], 0x4FE0);  // 31.5 = 1.96875 * 16
}

TEST(Int, AxisAndGroupFollowTheSide) {
  // Scales per block at head size 128: 64 tokens of a channel for keys, 128 channels of a token for values.
  EXPECT_EQ(StreamBytes(*Make("", Side::kKey, 128), "scales"), 2u * 128);
  EXPECT_EQ(StreamBytes(*Make("", Side::kValue, 128), "scales"), 2u * 64);
  EXPECT_EQ(StreamBytes(*Make("", Side::kValue, 256), "scales"), 2u * 64 * 2);
  EXPECT_EQ(StreamBytes(*Make("", Side::kValue, 80), "scales"), 2u * 64);
  EXPECT_EQ(StreamBytes(*Make("axis=channel,group=32", Side::kValue, 128), "scales"), 2u * 128 * 2);
  EXPECT_EQ(StreamBytes(*Make("axis=token,group=32", Side::kKey, 96), "scales"), 2u * 64 * 3);
  EXPECT_EQ(StreamBytes(*Make("axis=token,group=head", Side::kKey, 192), "scales"), 2u * 64);
}

TEST(Int, EveryBitWidthHasItsSize) {
  for (int bits : {2, 3, 4, 8}) {
    const Result<Codec> codec = Make(StrFormat("%d", bits), Side::kKey, 128);
    ASSERT_TRUE(codec.ok());
    EXPECT_EQ(StreamBytes(*codec, "codes"), static_cast<size_t>(bits) * 64 * 128 / 8);
  }
}

TEST(Int, RefusesWhatItCannotDo) {
  const auto message = [](std::string_view options, Side side, int dim) {
    const Result<Codec> codec = Make(options, side, dim);
    EXPECT_EQ(codec.status().code(), StatusCode::kInvalidArgument) << options;
    return codec.status().message();
  };
  EXPECT_EQ(message("bits=5", Side::kKey, 128), "codec int: bits=5 is not accepted; accepted: 2, 3, 4, 8");
  EXPECT_THAT(message("axis=row", Side::kKey, 128), HasSubstr("accepted: auto, token, channel"));
  EXPECT_THAT(message("group=48", Side::kKey, 128), HasSubstr("group=48 is not accepted; accepted: auto, 32, 64"));
  EXPECT_THAT(message("group=128", Side::kKey, 128), HasSubstr("since a page has 64 tokens"));
  EXPECT_THAT(message("group=head", Side::kKey, 128), HasSubstr("since a page has 64 tokens"));
  EXPECT_THAT(message("group=32", Side::kValue, 80), HasSubstr("since it does not divide the head size 80"));
  EXPECT_THAT(message("axis=token,group=64", Side::kKey, 96), HasSubstr("does not divide the head size 96"));
}

TEST(Int, EightBitsAreExactForIntegers) {
  const Result<Codec> codec = Make("8,group=head", Side::kValue, 256);
  ASSERT_TRUE(codec.ok());
  AlignedBuffer<float> rows(64 * 256), decoded(64 * 256);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * 37 % 256) - 100.0f;
  AlignedBuffer<std::byte> block(codec->block_bytes());
  ASSERT_TRUE(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).ok());
  ASSERT_TRUE(codec->verbs.decode(*codec->state, {}, block.data(), decoded.data()).ok());
  EXPECT_THAT(decoded.span(), testing::ElementsAreArray(rows.span()));
}

}  // namespace
}  // namespace kvant::integer
