#include "eval/logit_file.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace kvant {
namespace {

TEST(LogitFileTest, RowsComeBackInAnyOrder) {
  auto file = LogitFile::Create(3);
  ASSERT_TRUE(file.ok()) << file.status().message();
  for (float row = 0; row < 5; ++row) ASSERT_TRUE(file->Append(std::vector<float>{row, row + 0.5f, -row}).ok());
  EXPECT_EQ(file->num_rows(), 5);
  std::vector<float> logits(3);
  for (int64_t i : {4, 0, 2}) {
    ASSERT_TRUE(file->Read(i, logits).ok());
    const float row = static_cast<float>(i);
    EXPECT_EQ(logits, (std::vector<float>{row, row + 0.5f, -row}));
  }
}

TEST(LogitFileTest, LeavesNoNameBehind) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "kvant_logit_file_test";
  std::filesystem::create_directories(folder);
  setenv("TMPDIR", folder.c_str(), 1);
  const auto file = LogitFile::Create(1);
  EXPECT_TRUE(file.ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove(folder);
  EXPECT_EQ(LogitFile::Create(1).status().code(), StatusCode::kIoError);
  unsetenv("TMPDIR");
}

}  // namespace
}  // namespace kvant
