#include "tune/candidates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvant {
namespace {

const std::vector<LayerShape> kLayers = {{.kv_heads = 2, .k_dim = 64, .v_dim = 32}, {1, 128, 128}};

TEST(CandidatesTest, AreEachThereOnceAndTheExactOneIsLast) {
  const auto candidates = ParseCandidates({"int:4", "raw", "int:bits=4", "qjl", "int:8"});
  ASSERT_TRUE(candidates.ok()) << candidates.status().message();
  ASSERT_EQ(candidates->size(), 4u);
  EXPECT_EQ((*candidates)[0].name(), "int:bits=4");
  EXPECT_EQ((*candidates)[1].recent_tokens(), 128);
  EXPECT_TRUE((*candidates)[3].is_exact);
  EXPECT_EQ((*candidates)[3].choice, ExactChoice());
}

TEST(CandidatesTest, ServeTheSidesOfTheirCodec) {
  const auto candidates = ParseCandidates({"k=int:4", "v=int:3", "int:2", "v=int:2"});
  ASSERT_TRUE(candidates.ok()) << candidates.status().message();
  ASSERT_EQ(candidates->size(), 4u);
  EXPECT_TRUE((*candidates)[0].Serves(true) && !(*candidates)[0].Serves(false));
  EXPECT_TRUE(!(*candidates)[1].Serves(true) && (*candidates)[1].Serves(false));
  EXPECT_TRUE((*candidates)[2].Serves(true) && (*candidates)[2].Serves(false));
}

TEST(CandidatesTest, RefusalsNameTheText) {
  EXPECT_THAT(ParseCandidates({"zip"}).status().message(), testing::HasSubstr("codec 'zip'"));
  EXPECT_THAT(ParseCandidates({"int:zip=1"}).status().message(), testing::HasSubstr("no option 'zip'"));
  EXPECT_THAT(ParseCandidates({"kv4"}).status().message(), testing::HasSubstr("codec 'kv4'"));
}

TEST(CandidatesTest, CostsCountSinksAndExactRows) {
  const auto candidates = ParseCandidates({"int:4"});
  const auto plain = CandidateCosts::Of(*candidates, kLayers, 0, 0, 128, nullptr);
  const auto sinks = CandidateCosts::Of(*candidates, kLayers, 4, 0, 128, nullptr);
  const auto recent = CandidateCosts::Of(*candidates, kLayers, 0, 128, 128, nullptr);
  ASSERT_TRUE(plain.ok() && sinks.ok() && recent.ok());
  EXPECT_DOUBLE_EQ(plain->Bytes(1, true, 0), plain->BitsPerValue(1, true, 0) * 128 * 128 / 8);
  EXPECT_EQ(sinks->Bytes(1, true, 0), plain->Bytes(1, true, 0) + 16 * 128 * 2);
  EXPECT_EQ(recent->Bytes(0, false, 0), 128 * 64 * 2);
  EXPECT_EQ(plain->Bytes(0, true, 1), 128 * 128 * 2);
}

}  // namespace
}  // namespace kvant
