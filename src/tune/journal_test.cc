#include "tune/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace kvant {
namespace {

class JournalTest : public testing::Test {
 protected:
  JournalTest() { std::filesystem::remove(path_); }
  ~JournalTest() override { std::filesystem::remove(path_); }
  Journal MustOpen() const {
    Result<Journal> journal = Journal::Open(path_);
    EXPECT_TRUE(journal.ok()) << journal.status().message();
    return std::move(journal).value();
  }
  void Append(const std::string& text) const { std::ofstream(path_, std::ios::app) << text; }

  const std::string path_ = testing::TempDir() + "kvant_journal_" + std::to_string(getpid());
  const Measurement m_ = {.kl = 0.1, .kl_stderr = 1e-3, .bytes = int64_t{1} << 40, .bits_per_value = 3.25};
};

TEST_F(JournalTest, KeepsWhatWasAdded) {
  {
    Journal journal = MustOpen();
    EXPECT_EQ(journal.Find("a"), std::nullopt);
    EXPECT_TRUE(journal.Add("a", m_).ok());
    EXPECT_TRUE(journal.Add("b\n\"\xff", m_).ok());
  }
  const Journal journal = MustOpen();
  ASSERT_TRUE(journal.Find("a").has_value());
  EXPECT_EQ(journal.Find("a")->kl, 0.1);
  EXPECT_EQ(journal.Find("a")->bytes, int64_t{1} << 40);
  EXPECT_EQ(journal.size(), 2u);
}

TEST_F(JournalTest, DropsALineThatWasCutShort) {
  EXPECT_TRUE(MustOpen().Add("a", m_).ok());
  Append("{\"key\":\"b\",\"kl\":0.");
  {
    Journal journal = MustOpen();
    EXPECT_EQ(journal.size(), 1u);
    EXPECT_TRUE(journal.Add("c", m_).ok());
  }
  EXPECT_EQ(MustOpen().size(), 2u);
}

TEST_F(JournalTest, RefusesForeignFiles) {
  Append("my diary\n");
  EXPECT_EQ(Journal::Open(path_).status().code(), StatusCode::kCorruption);
  std::filesystem::remove(path_);
  Append("no line end");
  EXPECT_EQ(Journal::Open(path_).status().code(), StatusCode::kCorruption);
  EXPECT_EQ(std::filesystem::file_size(path_), 11u);  // as it was
  EXPECT_EQ(Journal::Open(testing::TempDir()).status().code(), StatusCode::kIoError);
  EXPECT_EQ(Journal::Open("/dev/zero").status().code(), StatusCode::kIoError);
}

TEST_F(JournalTest, AFullDiskLeavesEarlierLinesIntact) {
  Journal journal = MustOpen();
  EXPECT_TRUE(journal.Add("a", m_).ok());
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {.rlim_cur = std::filesystem::file_size(path_) + 10, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_EQ(journal.Add("b", m_).code(), StatusCode::kIoError);  // ten bytes of it fit
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(journal.Add("c", m_).ok());
  const Journal again = MustOpen();
  EXPECT_TRUE(again.Find("a").has_value() && again.Find("c").has_value());
  EXPECT_EQ(again.size(), 2u);
}

TEST_F(JournalTest, WithoutAPathKeepsNothingOnDisk) {
  Result<Journal> journal = Journal::Open("");
  ASSERT_TRUE(journal.ok());
  EXPECT_TRUE(journal->Add("a", m_).ok());
  EXPECT_TRUE(journal->Find("a").has_value());
}

}  // namespace
}  // namespace kvant
