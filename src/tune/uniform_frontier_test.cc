#include "tune/uniform_frontier.h"

#include <gtest/gtest.h>

namespace kvant {
namespace {

TEST(UniformFrontierTest, IsTheLowerHullInLogKl) {
  const auto frontier =
      Frontier({{"c", 4, 1e-4}, {"a", 2, 1e-2}, {"worse", 3, 2e-3}, {"b", 3, 5e-4}, {"useless", 5, 1e-3}});
  ASSERT_EQ(frontier.size(), 3u);
  EXPECT_EQ(frontier[0].cache + frontier[1].cache + frontier[2].cache, "abc");
  EXPECT_EQ(Frontier({{"a", 2, 1e-2}, {"above", 3, 1.1e-3}, {"c", 4, 1e-4}}).size(), 2u);
  EXPECT_EQ(Frontier({{"a", 2, 1e-2}, {"same", 2, 1e-3}}).size(), 1u);
}

TEST(UniformFrontierTest, InterpolatesLogKl) {
  const auto frontier = Frontier({{"a", 2, 1e-2}, {"c", 4, 1e-4}});
  EXPECT_NEAR(*KlAt(frontier, 3), 1e-3, 1e-12);
  EXPECT_NEAR(*KlAt(frontier, 2), 1e-2, 1e-12);
  EXPECT_NEAR(*KlAt(frontier, 9), 1e-4, 1e-12);
  EXPECT_EQ(KlAt(frontier, 1.9), std::nullopt);
}

}  // namespace
}  // namespace kvant
