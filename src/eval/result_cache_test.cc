#include "eval/result_cache.h"

#include <gtest/gtest.h>

#include <fstream>

namespace kvant {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

class ResultCacheTest : public testing::Test {
 protected:
  ResultCacheTest()
      : folder_(fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(folder_);
  }
  ~ResultCacheTest() override { fs::remove_all(folder_); }
  ResultCache Open() const {
    Result<ResultCache> cache = ResultCache::Open(folder_.string());
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    return *cache;
  }
  fs::path OnlyFile() const {
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
    return fs::directory_iterator(folder_)->path();
  }
  const fs::path folder_;
};

TEST_F(ResultCacheTest, ComesBackInAnotherProcess) {
  const Json key = {{"model", "abc"}, {"tokens", 10}}, value = {{"kl", 0.1}, {"list", {1, 2}}};
  ASSERT_TRUE(Open().Store(key, value).ok());
  EXPECT_EQ(Open().Find(key), value);
  EXPECT_EQ(Open().Find({{"tokens", 10}, {"model", "abc"}}), value) << "the order of names does not matter";
}

TEST_F(ResultCacheTest, AnyDifferenceOfTheKeyIsSomethingElse) {
  const ResultCache cache = Open();
  ASSERT_TRUE(cache.Store({{"tokens", 10}}, 1).ok());
  EXPECT_EQ(cache.Find({{"tokens", 11}}), std::nullopt);
  EXPECT_EQ(cache.Find({{"tokens", "10"}}), std::nullopt);
  EXPECT_EQ(cache.Find({{"tokens", 10}, {"more", nullptr}}), std::nullopt);
}

TEST_F(ResultCacheTest, TheLastValueStays) {
  const ResultCache cache = Open();
  ASSERT_TRUE(cache.Store("key", 1).ok() && cache.Store("key", 2).ok());
  EXPECT_EQ(cache.Find("key"), Json(2));
  OnlyFile();
}

TEST_F(ResultCacheTest, DamagedFilesCountAsMissingAndAreReplaced) {
  const ResultCache cache = Open();
  ASSERT_TRUE(cache.Store("key", 1).ok());
  const fs::path file = OnlyFile();
  for (const char* content :
       {"", "{\"key\": \"key\", \"val", "[1]", "{\"key\": \"another\", \"value\": 1}", "\xFF\xFE"}) {
    std::ofstream(file) << content;
    EXPECT_EQ(cache.Find("key"), std::nullopt) << content;
  }
  ASSERT_TRUE(cache.Store("key", 3).ok());
  EXPECT_EQ(cache.Find("key"), Json(3));
}

TEST_F(ResultCacheTest, WithoutAFolderNothingIsKept) {
  const ResultCache none;
  EXPECT_TRUE(none.Store("key", 1).ok());
  EXPECT_EQ(none.Find("key"), std::nullopt);
}

TEST_F(ResultCacheTest, AFolderThatCannotBeIsNamed) {
  std::ofstream(folder_) << "a file";
  const auto cache = ResultCache::Open((folder_ / "results").string());
  EXPECT_EQ(cache.status().code(), StatusCode::kIoError);
  EXPECT_NE(cache.status().message().find("results folder " + folder_.string()), std::string::npos);
}

}  // namespace
}  // namespace kvant
