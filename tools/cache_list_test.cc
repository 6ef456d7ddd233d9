#include "cache_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvant {
namespace {

using testing::ElementsAre;

TEST(SplitCachesTest, CommasSeparateCaches) {
  EXPECT_THAT(SplitCaches("f16,llama:q8_0/q4_0,kv4"), ElementsAre("f16", "llama:q8_0/q4_0", "kv4"));
  EXPECT_THAT(SplitCaches("kv4"), ElementsAre("kv4"));
}

TEST(SplitCachesTest, CommasOfOptionsStayWithTheirCodec) {
  EXPECT_THAT(SplitCaches("int:4,group=32,k=kivi:bits=2,group=32 v=int:2,sym=1 sink=4,kv2"),
              ElementsAre("int:4,group=32", "k=kivi:bits=2,group=32 v=int:2,sym=1 sink=4", "kv2"));
}

TEST(SplitCachesTest, EmptyPiecesAreKeptToBeRefused) {
  EXPECT_THAT(SplitCaches("kv4,"), ElementsAre("kv4", ""));
  EXPECT_THAT(SplitCaches(""), ElementsAre(""));
}

}  // namespace
}  // namespace kvant
