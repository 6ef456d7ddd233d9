#include "base/output_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace kvant {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "kvant_output_file_XXXXXX";  // tests run side by side
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string Read(const fs::path& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  size_t NumFiles() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

TEST_F(OutputFileTest, NothingAppearsBeforeTheWrite) {
  const fs::path path = folder_ / "a.json";
  const auto file = OutputFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(NumFiles(), 0u);
  ASSERT_TRUE(file->Write("one").ok());
  EXPECT_EQ(Read(path), "one");
  EXPECT_EQ(NumFiles(), 1u);
}

TEST_F(OutputFileTest, ReplacesTheTargetOfALink) {
  std::ofstream(folder_ / "real") << "before";
  fs::create_symlink("real", folder_ / "link");
  const auto file = OutputFile::Open(folder_ / "link");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(Read(folder_ / "real"), "before");
  ASSERT_TRUE(file->Write("after").ok());
  EXPECT_EQ(Read(folder_ / "real"), "after");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
}

TEST_F(OutputFileTest, RefusesBeforeTheWork) {
  for (const fs::path& path : {folder_ / "missing" / "a", folder_, fs::path("")}) {
    const auto file = OutputFile::Open(path);
    EXPECT_EQ(file.status().code(), StatusCode::kIoError) << path;
    EXPECT_EQ(file.status().message().find(path.string()), 0u) << path;
  }
}

TEST_F(OutputFileTest, DevicesAreWrittenAsTheyAre) {
  const auto file = OutputFile::Open("/dev/null");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_TRUE(file->Write("x").ok());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  const auto full = OutputFile::Open("/dev/full");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->Write("x").code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace kvant
