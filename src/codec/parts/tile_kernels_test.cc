#include "codec/parts/tile_kernels.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"

namespace kvant {
namespace {

struct Case {
  std::vector<uint8_t> bits;
  AlignedBuffer<uint8_t> codes;
  AlignedBuffer<std::byte> packed;
  int num_tiles() const { return static_cast<int>(bits.size()); }
};

Case MakeCase(TileOrder order, std::vector<uint8_t> bits, uint32_t seed) {
  std::mt19937 rng(seed);
  const size_t channels = bits.size() * kTileChannels;
  Case c{std::move(bits), AlignedBuffer<uint8_t>(64 * channels), {}};
  size_t bytes = 0;
  for (uint8_t b : c.bits) bytes += TileBytes(b);
  c.packed = AlignedBuffer<std::byte>(bytes);
  for (size_t i = 0; i < c.codes.size(); ++i) {
    c.codes[i] = static_cast<uint8_t>(rng() & ((1u << c.bits[i % channels / kTileChannels]) - 1));
  }
  ReferenceTileKernels().pack(order, c.bits.data(), c.num_tiles(), c.codes.data(), c.packed.data());
  return c;
}

const std::vector<std::vector<uint8_t>> kWidths = {
    {1, 1, 1, 1, 1, 1, 1, 1}, {2, 2, 2, 2, 2, 2, 2, 2}, {3, 3, 3, 3}, {4, 4, 4, 4, 4}, {6, 6, 6, 6},
    {8, 8, 8, 8, 8, 8, 8, 8}, {8, 6, 4, 3, 2, 1, 0, 0}, {0, 0, 1, 4}, {4, 0, 4, 2},
};

class TileKernelsTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(SetSimdTarget(GetParam())); }
  void TearDown() override { SetSimdTarget(""); }
  TileLevels levels_ = [] {
    TileLevels levels;
    std::mt19937 rng(5);
    for (auto& table : levels.by_bits) {
      for (uint8_t& level : table) level = static_cast<uint8_t>(rng());
    }
    levels.by_bits[4][15] = 255;  // the extreme product must not saturate
    return levels;
  }();
};

TEST_P(TileKernelsTest, PackAndUnpackAreTheFormat) {
  for (const TileOrder order : {TileOrder::kTokenLane, TileOrder::kChannelLane}) {
    for (const auto& bits : kWidths) {
      const Case c = MakeCase(order, bits, 1);
      AlignedBuffer<std::byte> packed(c.packed.size());
      AlignedBuffer<uint8_t> codes(c.codes.size());
      GetTileKernels().pack(order, bits.data(), c.num_tiles(), c.codes.data(), packed.data());
      EXPECT_EQ(std::memcmp(packed.data(), c.packed.data(), c.packed.size()), 0);
      GetTileKernels().unpack(order, bits.data(), c.num_tiles(), packed.data(), codes.data());
      EXPECT_EQ(std::memcmp(codes.data(), c.codes.data(), c.codes.size()), 0);
    }
  }
}

TEST_P(TileKernelsTest, ScoreIsExact) {
  std::mt19937 rng(2);
  for (const auto& bits : kWidths) {
    const Case c = MakeCase(TileOrder::kTokenLane, bits, 3);
    for (const int columns : {1, 2, 3, 4, 5, 8, 16, 32}) {
      AlignedBuffer<int8_t> q(static_cast<size_t>(columns) * bits.size() * kTileChannels);
      for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
      for (const TileLevels* levels :
           {static_cast<const TileLevels*>(nullptr), static_cast<const TileLevels*>(&levels_)}) {
        const TileMatrix m = {c.packed.data(), bits.data(), c.num_tiles(), levels};
        for (const auto& [first, last] : {std::pair{0, 64}, {0, 32}, {32, 64}}) {
          AlignedBuffer<int32_t> want(static_cast<size_t>(columns) * 64), got(static_cast<size_t>(columns) * 64);
          ReferenceTileKernels().score(m, q.data(), columns, first, last, want.data());
          GetTileKernels().score(m, q.data(), columns, first, last, got.data());
          ASSERT_EQ(std::memcmp(want.data(), got.data(), want.size() * 4), 0) << columns << " " << int(bits[0]);
        }
      }
    }
  }
}

TEST_P(TileKernelsTest, AccumulateMatches) {
  std::mt19937 rng(4);
  for (const auto& bits : kWidths) {
    const Case c = MakeCase(TileOrder::kChannelLane, bits, 6);
    const size_t dim = bits.size() * kTileChannels;
    for (const int heads : {1, 2, 3, 4, 5, 16}) {
      for (const int planes : {1, 2}) {
        AlignedBuffer<int8_t> w(static_cast<size_t>(heads) * 128);
        for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(rng() % 128);
        std::vector<float> scale(static_cast<size_t>(heads));
        for (float& s : scale) s = static_cast<float>(rng() % 1000) * 1e-6f;
        for (const TileLevels* levels :
             {static_cast<const TileLevels*>(nullptr), static_cast<const TileLevels*>(&levels_)}) {
          const TileMatrix m = {c.packed.data(), bits.data(), c.num_tiles(), levels};
          AlignedBuffer<float> want(static_cast<size_t>(heads) * dim), got(static_cast<size_t>(heads) * dim);
          ReferenceTileKernels().accumulate(m, w.data(), heads, planes, scale.data(), want.data(), dim);
          GetTileKernels().accumulate(m, w.data(), heads, planes, scale.data(), got.data(), dim);
          for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-5f * (std::abs(want[i]) + 1.0f));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, TileKernelsTest, ::testing::ValuesIn(SimdTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kvant
