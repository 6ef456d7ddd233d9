#include "cache/page_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace kvant {
namespace {

/// Bytes of this process that are in memory; 0 where the system does not tell.
size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST(PagePool, SlotsAreAlignedAndDistinct) {
  PagePool pool;
  std::mt19937 random(1);
  std::vector<PoolSlot> slots;
  for (int i = 0; i < 2000; ++i) {
    slots.emplace_back(&pool, 1 + random() % 70000);
    ASSERT_TRUE(slots.back());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(slots.back().data()) % 64, 0u);
    std::memset(slots.back().data(), i % 251, slots.back().bytes());
    if (i % 3 == 0) slots.erase(slots.begin() + static_cast<long>(random() % slots.size()));
  }
  for (const PoolSlot& slot : slots) {
    EXPECT_EQ(slot.data()[0], slot.data()[slot.bytes() - 1]);  // nobody else wrote to either end
  }
}

TEST(PagePool, CountsWholeCacheLines) {
  PagePool pool;
  PoolSlot a(&pool, 1);
  PoolSlot b(&pool, 65);
  EXPECT_EQ(pool.used_bytes(), 64u + 128u);
  a.Reset();
  EXPECT_EQ(pool.used_bytes(), 128u);
  b = PoolSlot();
  EXPECT_EQ(pool.used_bytes(), 0u);
}

TEST(PagePool, FreedSlotsAreReused) {
  PagePool pool;
  std::vector<PoolSlot> slots;
  for (int i = 0; i < 100; ++i) slots.emplace_back(&pool, 8704);
  const size_t reserved = pool.reserved_bytes();
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 100; i += 2) slots[static_cast<size_t>(i)].Reset();
    for (int i = 0; i < 100; i += 2) slots[static_cast<size_t>(i)] = PoolSlot(&pool, 8704);
  }
  EXPECT_EQ(pool.reserved_bytes(), reserved);
}

TEST(PagePool, EnforcesTheLimit) {
  PagePool pool(1000 * 64);
  std::vector<PoolSlot> slots;
  while (PoolSlot slot{&pool, 640}) slots.push_back(std::move(slot));
  EXPECT_EQ(slots.size(), 100u);
  EXPECT_FALSE(PoolSlot(&pool, 1));
  EXPECT_THAT(pool.OutOfMemory("layer 3 K").message(),
              testing::AllOf(testing::HasSubstr("layer 3 K"), testing::HasSubstr("64000")));
  slots.pop_back();
  EXPECT_TRUE(PoolSlot(&pool, 640));  // what was freed serves again, in any size
  EXPECT_TRUE(PoolSlot(&pool, 64));
  EXPECT_FALSE(PoolSlot(&pool, 641));
}

TEST(PagePool, RefusesWhatTheMachineDoesNotHave) {
  PagePool pool;
  EXPECT_FALSE(PoolSlot(&pool, size_t{1} << 60));
  EXPECT_EQ(pool.used_bytes(), 0u);
  EXPECT_EQ(pool.reserved_bytes(), 0u);
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kResidentIsOurs = false;  // the sanitizer's own memory is in it
#else
constexpr bool kResidentIsOurs = true;
#endif

TEST(PagePool, ProcessGrowsByWhatIsUsed) {
  PagePool pool;
  const size_t before = ResidentBytes();
  std::vector<PoolSlot> slots;
  for (const size_t bytes : {8704u, 32768u, 2048u, 1600000u}) {
    for (size_t held = 0; held < (size_t{24} << 20); held += bytes) {
      slots.emplace_back(&pool, bytes);
      std::memset(slots.back().data(), 1, bytes);
    }
  }
  const double used = static_cast<double>(pool.used_bytes());
  EXPECT_GE(static_cast<double>(pool.reserved_bytes()), used);
  EXPECT_LE(static_cast<double>(pool.reserved_bytes()), 1.05 * used);
  if (kResidentIsOurs && before != 0) {
    const double grown = static_cast<double>(ResidentBytes() - before);
    EXPECT_GE(grown, 0.95 * used);
    EXPECT_LE(grown, 1.05 * used);
  }
  slots.clear();
  EXPECT_EQ(pool.used_bytes(), 0u);
  EXPECT_LE(pool.reserved_bytes(), size_t{4} << 20);  // one chunk of each size stays
}

TEST(PagePool, ServesThreads) {
  PagePool pool;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      std::vector<PoolSlot> slots;
      for (int i = 0; i < 500; ++i) {
        slots.emplace_back(&pool, 4096);
        std::memset(slots.back().data(), t, 4096);
        if (i % 2 == 0) slots.erase(slots.begin());
      }
      for (const PoolSlot& slot : slots) EXPECT_EQ(slot.data()[4095], static_cast<std::byte>(t));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.used_bytes(), 0u);
}

}  // namespace
}  // namespace kvant
