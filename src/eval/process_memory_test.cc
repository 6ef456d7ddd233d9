#include "eval/process_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

namespace kvant {
namespace {

TEST(PrivateMemoryTest, GrowsAndShrinksWithAnAllocation) {
  const int64_t before = PrivateMemoryBytes();
  if (before == 0) GTEST_SKIP() << "the system does not tell";
  constexpr int64_t kBytes = 64 << 20;
  auto memory = std::make_unique<char[]>(kBytes);
  // Not all zeros, so that the pages are really there.
  std::memset(memory.get(), 1, kBytes);
  EXPECT_NEAR(static_cast<double>(PrivateMemoryBytes() - before), kBytes, kBytes / 16);
  memory.reset();
  EXPECT_LT(PrivateMemoryBytes() - before, kBytes / 16);
}

}  // namespace
}  // namespace kvant
