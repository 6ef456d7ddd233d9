#include "eval/process_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

namespace kvant {
namespace {

TEST(PrivateMemoryTest, GrowsAndShrinksWithAnAllocation) {
  const int64_t before = PrivateMemoryBytes();
  if (before == 0) GTEST_SKIP() << "the system does not tell";
  // Straight from the system: an allocator, above all a sanitizer's, may keep what is freed.
  constexpr size_t kBytes = 64 << 20;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  std::memset(memory, 1, kBytes);
  EXPECT_NEAR(static_cast<double>(PrivateMemoryBytes() - before), kBytes, kBytes / 16);
  munmap(memory, kBytes);
  EXPECT_LT(PrivateMemoryBytes() - before, static_cast<int64_t>(kBytes / 16));
}

}  // namespace
}  // namespace kvant
