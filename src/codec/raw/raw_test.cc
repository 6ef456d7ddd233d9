#include "codec/raw/raw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/aligned_buffer.h"
#include "base/float16.h"

namespace kvant::raw {
namespace {

using testing::HasSubstr;

constexpr int kDim = 16;

Codec Make(std::string_view type, Side side, int tokens = kTokensPerPage) {
  Result<Codec> codec = MakeCodec("raw", {{"type", std::string(type)}}, {.side = side, .dim = kDim, .tokens = tokens});
  EXPECT_TRUE(codec.ok()) << codec.status().message();
  return *std::move(codec);
}

AlignedBuffer<std::byte> Encoded(const Codec& codec, const AlignedBuffer<float>& rows) {
  AlignedBuffer<std::byte> block(codec.block_bytes());
  const Status status = codec.verbs.encode(*codec.state, {}, rows.data(), block.data());
  EXPECT_TRUE(status.ok()) << status.message();
  return block;
}

const uint16_t* Words(const AlignedBuffer<std::byte>& block) { return reinterpret_cast<const uint16_t*>(block.data()); }

AlignedBuffer<float> ZeroRows() { return AlignedBuffer<float>(kTokensPerPage * kDim); }

// Row t holds t / 2 in channel 0, a tie or a number of its own in the first tokens of channel 1, else 0.
AlignedBuffer<float> HandRows() {
  AlignedBuffer<float> rows = ZeroRows();
  for (size_t t = 0; t < kTokensPerPage; ++t) rows[t * kDim] = 0.5f * static_cast<float>(t);
  const float channel1[] = {-1.0f, 1.0f + 0x1p-11f, 1.0f + 0x3p-11f, 1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 0x1p-24f};
  for (size_t t = 0; t < std::size(channel1); ++t) rows[t * kDim + 1] = channel1[t];
  return rows;
}

TEST(Raw, HandComputedBlockOfKeys) {
  const Codec codec = Make("fp16", Side::kKey);
  ASSERT_EQ(codec.block_bytes(), 2u * 64u * 16u);
  const AlignedBuffer<std::byte> block = Encoded(codec, HandRows());
  EXPECT_THAT(std::vector<uint16_t>(Words(block), Words(block) + 5),
              testing::ElementsAre(0x0000, 0x3800, 0x3C00, 0x3E00, 0x4000));
  EXPECT_EQ(Words(block)[63], 0x4FE0);                                      // 31.5 = 1.96875 * 16
  EXPECT_THAT(std::vector<uint16_t>(Words(block) + 64, Words(block) + 71),  // ties go to even
              testing::ElementsAre(0xBC00, 0x3C00, 0x3C02, 0x3C04, 0x3C0C, 0x0001, 0x0000));
  for (size_t i = 71; i < 64 * 16; ++i) ASSERT_EQ(Words(block)[i], 0) << i;
}

TEST(Raw, ValuesLieTokenByToken) {
  const AlignedBuffer<std::byte> block = Encoded(Make("fp16", Side::kValue), HandRows());
  EXPECT_EQ(Words(block)[1], 0xBC00);
  EXPECT_EQ(Words(block)[16], 0x3800);
  EXPECT_EQ(Words(block)[17], 0x3C00);
  EXPECT_EQ(Words(block)[63 * 16], 0x4FE0);
}

TEST(Raw, BF16KeepsSevenBits) {
  const AlignedBuffer<std::byte> block = Encoded(Make("bf16", Side::kKey), HandRows());
  EXPECT_EQ(Words(block)[63], 0x41FC);  // 31.5
  EXPECT_THAT(std::vector<uint16_t>(Words(block) + 64, Words(block) + 71),
              testing::ElementsAre(0xBF80, 0x3F80, 0x3F80, 0x3F80, 0x3F82, 0x3380, 0x0000));
}

TEST(Raw, RowsInPlaceAreThoseOfTheBlock) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    const Codec codec = Make("fp16", side);
    const AlignedBuffer<std::byte> encoded = Encoded(codec, HandRows());
    AlignedBuffer<std::byte> copy(encoded.size());
    for (int t = 0; t < kTokensPerPage; ++t) {
      F16 row[kDim];
      kInfo.load_row(codec.shape(), encoded.data(), t, row);
      EXPECT_EQ(ToFloat(row[0]), 0.5f * static_cast<float>(t));
      kInfo.store_row(codec.shape(), copy.data(), t, row);
    }
    EXPECT_TRUE(std::equal(encoded.span().begin(), encoded.span().end(), copy.span().begin()));
  }
}

TEST(Raw, RefusesWhatDoesNotFit) {
  const struct {
    std::string_view type;
    float largest;
  } kCases[] = {{"fp16", 65504.0f}, {"bf16", 0x1p100f}};
  for (const auto& [type, largest] : kCases) {
    const Codec codec = Make(type, Side::kKey);
    AlignedBuffer<std::byte> block(codec.block_bytes());
    AlignedBuffer<float> rows = ZeroRows(), decoded = ZeroRows();
    rows[5] = -largest;
    EXPECT_TRUE(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).ok()) << type;
    EXPECT_TRUE(codec.verbs.decode(*codec.state, {}, block.data(), decoded.data()).ok()) << type;
    EXPECT_EQ(decoded[5], -largest);
    rows[5] = std::nextafter(-largest, -std::numeric_limits<float>::infinity());
    const Status status = codec.verbs.encode(*codec.state, {}, rows.data(), block.data());
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << type;
    EXPECT_THAT(status.message(), HasSubstr("is beyond"));
  }
}

TEST(Raw, WordsThatNoEncoderWritesAreCorrupt) {
  const struct {
    std::string_view type;
    uint16_t word;
  } kCases[] = {{"fp16", 0x7C00}, {"fp16", 0xFC00}, {"fp16", 0x7E00},                     // infinities, not a number
                {"bf16", 0x7F80}, {"bf16", 0x7FC0}, {"bf16", 0x7181}, {"bf16", 0xF181}};  // and just above 2^100
  for (const auto& [type, word] : kCases) {
    const Codec codec = Make(type, Side::kValue);
    AlignedBuffer<std::byte> block = Encoded(codec, ZeroRows());
    reinterpret_cast<uint16_t*>(block.data())[64 * 16 - 1] = word;
    AlignedBuffer<float> rows = ZeroRows();
    const Status status = codec.verbs.decode(*codec.state, {}, block.data(), rows.data());
    EXPECT_EQ(status.code(), StatusCode::kCorruption) << type << " " << word;
    EXPECT_THAT(status.message(), HasSubstr("token 63"));
  }
}

TEST(Raw, BlocksOfSinksAreShorter) {
  const Codec codec = Make("fp16", Side::kKey, 16);
  ASSERT_EQ(codec.block_bytes(), 2u * 16u * 16u);
  const AlignedBuffer<std::byte> block = Encoded(codec, HandRows());
  EXPECT_EQ(Words(block)[15], 0x4780);  // 7.5
  EXPECT_EQ(Words(block)[16], 0xBC00);

  const float query[kDim] = {1.0f};
  AlignedBuffer<std::byte> prepared(codec.state->prepared_head_bytes);
  AlignedBuffer<float> scores(kTokensPerPage);
  scores[16] = -7.0f;
  codec.verbs.prepare_query(*codec.state, {}, query, 1, prepared.data());
  codec.verbs.score(*codec.state, {}, block.data(), prepared.data(), 1, scores.data());
  EXPECT_EQ(scores[15], 7.5f);
  EXPECT_EQ(scores[16], -7.0f);  // not written
}

TEST(Raw, OtherNumbersOfTokensAreRefused) {
  for (const int tokens : {0, 4, 40, 80}) {
    const auto codec = MakeCodec("raw", {}, {.side = Side::kKey, .dim = kDim, .tokens = tokens});
    EXPECT_EQ(codec.status().code(), StatusCode::kNotSupported) << tokens;
  }
}

}  // namespace
}  // namespace kvant::raw
