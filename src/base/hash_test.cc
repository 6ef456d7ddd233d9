#include "base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace kvant {
namespace {

std::string HashOf(const std::string& text) {
  Hash hash;
  hash.Add(text.data(), text.size());
  return hash.Hex();
}

TEST(Hash, IsXxh3OfLength128) {
  EXPECT_EQ(HashOf(""), "99aa06d3014798d86001c324468d497f");  // the published value of nothing
  EXPECT_EQ(HashOf("abc").size(), 32u);
  EXPECT_NE(HashOf("abc"), HashOf("abd"));
}

TEST(Hash, PartsMakeTheWhole) {
  Hash parts;
  parts.Add("ab", 2);
  parts.Add("", 0);
  parts.Add("c", 1);
  EXPECT_EQ(parts.Hex(), HashOf("abc"));
}

}  // namespace
}  // namespace kvant
