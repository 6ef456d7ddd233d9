#include "text_input.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace kvant {
namespace {

std::string FileWith(const std::string& content) {
  const std::string path =
      testing::TempDir() + "kvant_text_" + std::to_string(getpid()) + ".txt";  // tests run side by side
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(ReadTextTest, ReadsTheWholeFile) {
  const std::string content = std::string(200'000, 'x') + "gr\u00fc\u00df";
  const auto text = ReadText(FileWith(content));
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_EQ(*text, content);
}

TEST(ReadTextTest, NamesTheByteThatIsNoUtf8) {
  const std::string path = FileWith("abc\xFF\xFE");
  const auto text = ReadText(path);
  EXPECT_EQ(text.status().code(), StatusCode::kCorruption);
  EXPECT_EQ(text.status().message(), path + ": not UTF-8 text: byte 0xFF at offset 3; accepted: UTF-8 text");
}

TEST(ReadTextTest, RefusesEmptyMissingAndFolder) {
  EXPECT_EQ(ReadText(FileWith(" \n\t\n")).status().code(), StatusCode::kCorruption);
  EXPECT_EQ(ReadText("no/such/file").status().message(), "no/such/file: No such file or directory");
  EXPECT_EQ(ReadText("no/such/file").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadText(testing::TempDir()).status().code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace kvant
