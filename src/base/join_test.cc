#include "base/join.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace kvant {
namespace {

TEST(Join, PutsCommasBetween) {
  const auto same = [](std::string_view name) { return name; };
  EXPECT_EQ(Join(std::vector<std::string_view>{}, same), "");
  EXPECT_EQ(Join(std::vector<std::string_view>{"int"}, same), "int");
  EXPECT_EQ(Join(std::vector<std::string_view>{"int", "kivi", "raw"}, same), "int, kivi, raw");
  EXPECT_EQ(Join(std::vector<int>{1, 2}, [](int n) { return std::to_string(n); }), "1, 2");
}

}  // namespace
}  // namespace kvant
