#include "codec/kivi/kivi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/aligned_buffer.h"
#include "codec/registry.h"
#include "codec/test_rows.h"

namespace kvant::kivi {
namespace {

using testing::HasSubstr;

Result<Codec> Make(std::string_view options, Side side, int dim) {
  const Result<CodecOptions> parsed = ParseCodecOptions(kInfo, options);
  if (!parsed.ok()) return parsed.status();
  return MakeCodec("kivi", *parsed, {.side = side, .dim = dim});
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

// Both hand-computed blocks hold codes r, r+1, r+2, r+3 (mod 4) in the four fields of a byte; the byte by r:
constexpr uint8_t kByteFrom[] = {0xE4, 0x39, 0x4E, 0x93};

TEST(Kivi, HandComputedKeyBlock) {
  const Result<Codec> codec = Make("", Side::kKey, 16);
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  ASSERT_EQ(codec->block_bytes(), 256u + 2 * 16 * 2 + 2 * 16 * 2);
  // Channel c of tokens 0..31 is c + code / 2, of tokens 32..63 8 more, with code = (t + c + c / 4) mod 4.
  AlignedBuffer<float> rows(64 * 16);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 16; ++c) {
      rows[t * 16 + c] = static_cast<float>(c + t / 32 * 8) + 0.5f * static_cast<float>((t + c + c / 4) % 4);
    }
  }
  const AlignedBuffer<std::byte> block = Encode(*codec, rows);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  // Byte 4 t + i holds channels i, 4 + i, 8 + i, 12 + i of token t.
  for (size_t k = 0; k < 256; ++k) ASSERT_EQ(bytes[k], kByteFrom[(k / 4 + k) % 4]) << k;
  const auto* scales = reinterpret_cast<const uint16_t*>(bytes + 256);
  const auto* mins = scales + 32;
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(scales[i], 0x3800) << i;  // 0.5
  EXPECT_EQ(mins[0], 0x0000);
  EXPECT_EQ(mins[1], 0x3C00);   // 1
  EXPECT_EQ(mins[15], 0x4B80);  // 15
  EXPECT_EQ(mins[16], 0x4800);  // 8: channel 0, second group
  EXPECT_EQ(mins[31], 0x4DC0);  // 23
}

TEST(Kivi, HandComputedValueBlock) {
  const Result<Codec> codec = Make("", Side::kValue, 32);
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  ASSERT_EQ(codec->block_bytes(), 512u + 2 * 64 + 2 * 64);
  // Token t holds t + code with code = (c + t + t / 16) mod 4.
  AlignedBuffer<float> rows(64 * 32);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 32; ++c) rows[t * 32 + c] = static_cast<float>(t + (c + t + t / 16) % 4);
  }
  const AlignedBuffer<std::byte> block = Encode(*codec, rows);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  // Byte 64 j + 4 c + i of a tile holds channel c of tokens 4 j + i, 16 + 4 j + i, 32 + 4 j + i, 48 + 4 j +
  // i.
  for (size_t k = 0; k < 512; ++k) ASSERT_EQ(bytes[k], kByteFrom[(k / 4 + k) % 4]) << k;
  const auto* scales = reinterpret_cast<const uint16_t*>(bytes + 512);
  const auto* mins = scales + 64;
  for (size_t t = 0; t < 64; ++t) EXPECT_EQ(scales[t], 0x3C00) << t;
  EXPECT_EQ(mins[0], 0x0000);
  EXPECT_EQ(mins[1], 0x3C00);
  EXPECT_EQ(mins[3], 0x4200);
  EXPECT_EQ(mins[63], 0x53E0);  // 63 = 1.96875 * 32
}

TEST(Kivi, BlocksOfTwoBitsCostThreeBitsPerValue) {
  for (Side side : {Side::kKey, Side::kValue}) {
    EXPECT_EQ(Make("", side, 128)->block_bytes() * 8, 3u * 64 * 128);
    EXPECT_EQ(Make("4", side, 128)->block_bytes() * 8, 5u * 64 * 128);
    EXPECT_EQ(Make("group=64", side, 128)->block_bytes() * 16, 5u * 64 * 128);
  }
}

TEST(Kivi, PrescribesTheResidualWindowOfThePaper) { EXPECT_EQ(kInfo.recent_tokens, 128); }

TEST(Kivi, DecodedBlockEncodesToItself) {
  for (Side side : {Side::kKey, Side::kValue}) {
    for (int seed = 0; seed < 20; ++seed) {
      const Codec codec = *Make("", side, 128);
      const AlignedBuffer<std::byte> block = Encode(codec, Fp16NormalRows(64, 128, static_cast<unsigned>(seed)));
      const AlignedBuffer<std::byte> again = Encode(codec, Decode(codec, block));
      ASSERT_THAT(again.span(), testing::ElementsAreArray(block.span())) << seed;
    }
  }
}

TEST(Kivi, ConstantAndZeroRowsAreExact) {
  for (Side side : {Side::kKey, Side::kValue}) {
    const Codec codec = *Make("", side, 64);
    for (float value : {0.0f, -0.0f, 1.5f, -60000.0f}) {
      AlignedBuffer<float> rows(64 * 64);
      for (float& v : rows.span()) v = value;
      EXPECT_THAT(Decode(codec, Encode(codec, rows)).span(), testing::Each(value)) << value;
    }
  }
}

TEST(Kivi, ExtremesOfAGroupAreKept) {
  // Two values per group, fp16 both: each is its own level, so what is lost is the rounding of the scale.
  const Codec codec = *Make("", Side::kKey, 64);
  AlignedBuffer<float> rows(64 * 64);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 64; ++c) rows[t * 64 + c] = t % 2 ? 1.0f + static_cast<float>(c) : -2.0f;
  }
  const AlignedBuffer<float> decoded = Decode(codec, Encode(codec, rows));
  for (size_t i = 0; i < rows.size(); ++i) ASSERT_NEAR(decoded[i], rows[i], std::abs(rows[i] + 2.0f) / 2048) << i;
}

TEST(Kivi, KeyGroupsDoNotMixTokens) {
  // An outlier in token 40 must not change what tokens 0..31 decode to.
  const Codec codec = *Make("", Side::kKey, 64);
  AlignedBuffer<float> rows = Fp16NormalRows(64, 64, 1);
  const AlignedBuffer<float> before = Decode(codec, Encode(codec, rows));
  for (size_t c = 0; c < 64; ++c) rows[40 * 64 + c] = 1000.0f;
  const AlignedBuffer<float> after = Decode(codec, Encode(codec, rows));
  EXPECT_EQ(std::memcmp(before.data(), after.data(), 32 * 64 * sizeof(float)), 0);
  EXPECT_NE(std::memcmp(before.data() + 32 * 64, after.data() + 32 * 64, 8 * 64 * sizeof(float)), 0);
}

TEST(Kivi, RefusesWhatItCannotDo) {
  const auto status = [](std::string_view options, Side side, int dim) { return Make(options, side, dim).status(); };
  EXPECT_EQ(status("bits=3", Side::kKey, 128).message(), "codec kivi: bits=3 is not accepted; accepted: 2, 4");
  EXPECT_EQ(status("group=128", Side::kKey, 128).message(), "codec kivi: group=128 is not accepted; accepted: 32, 64");
  EXPECT_THAT(status("group=64", Side::kValue, 96).message(), HasSubstr("since it does not divide the head size 96"));
  EXPECT_TRUE(Make("group=64", Side::kKey, 80).ok());
  EXPECT_EQ(status("", Side::kValue, 80).code(), StatusCode::kNotSupported);
  EXPECT_THAT(status("", Side::kValue, 80).message(), HasSubstr("multiple of 32, not 80"));
}

}  // namespace
}  // namespace kvant::kivi
