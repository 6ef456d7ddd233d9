#include "eval/environment.h"

#include <gtest/gtest.h>

namespace kvant {
namespace {

TEST(ThisEnvironmentTest, NamesMachineAndProgram) {
  const Environment a = ThisEnvironment(), b = ThisEnvironment();
  EXPECT_FALSE(a.cpu.empty());
  EXPECT_NE(a.cpu.front(), ' ');
  EXPECT_EQ(a.system.substr(0, a.system.find(' ')), "Linux");
  EXPECT_EQ(a.program.size(), 32u);
  EXPECT_EQ(a.program, b.program);
}

}  // namespace
}  // namespace kvant
