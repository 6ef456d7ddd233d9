#include "codec/parts/trellis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/simd_target.h"
#include "codec/parts/strip.h"

namespace kvant {
namespace {

constexpr int kTokens = 64;
using Bits = std::vector<uint8_t>;

struct Page {
  explicit Page(const Bits& widths)
      : bits(widths),
        dim(static_cast<int>(widths.size()) * kTileChannels),
        rows(Size()),
        ticks(Size()),
        gains(kTokens),
        codes(Size()),
        scales(kTokens) {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal(0.0f, 3.0f);
    for (float& v : rows) v = normal(rng);
  }
  size_t Size() const { return static_cast<size_t>(kTokens * dim); }
  GainQuantizer Quantizer(ScaleRule rule) const {
    return {&TrellisCodebooks(), bits.data(), static_cast<int>(bits.size()), nullptr, rule};
  }
  void EncodeByRow(ScaleRule rule) {
    for (int t = 0; t < kTokens; ++t) {
      TrellisTicks(Quantizer(rule), &rows[static_cast<size_t>(t * dim)], &ticks[static_cast<size_t>(t * dim)],
                   &gains[static_cast<size_t>(t)]);
    }
    TrellisCodes(Quantizer(rule), ticks.data(), gains.data(), codes.data(), scales.data());
  }
  std::vector<std::byte> Packed(TileOrder order) const {
    std::vector<std::byte> packed(TileBytes(8) * bits.size());
    TrellisPack(order, bits.data(), static_cast<int>(bits.size()), codes.data(), packed.data());
    return packed;
  }

  Bits bits;
  int dim;
  std::vector<float> rows;
  std::vector<int16_t> ticks;
  std::vector<float> gains;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

// Level of (token, channel) from expanded tiles of which none is absent.
int LevelAt(const std::vector<std::byte>& levels, TileOrder order, int token, int channel) {
  const int tile = channel / kTileChannels;
  return static_cast<int>(
      levels[static_cast<size_t>(tile * kTileCodes + TileIndex(order, token, channel % kTileChannels))]);
}

TEST(TrellisTest, PlacesAreTokens) {
  EXPECT_EQ(TrellisToken(0), 0);
  EXPECT_EQ(TrellisToken(1), 1);
  EXPECT_EQ(TrellisToken(2), 16);
  EXPECT_EQ(TrellisToken(8), 2);
  EXPECT_EQ(TrellisToken(63), 63);
  for (int place = 0; place < kTokens; ++place) EXPECT_EQ(TrellisPlace(TrellisToken(place)), place);
}

TEST(TrellisTest, WindowsLookBackAroundTheCircle) {
  for (const TileOrder order : {TileOrder::kTokenLane, TileOrder::kChannelLane}) {
    std::vector<std::byte> packed(TileBytes(2));
    const auto window = [&](int place, int channel) {
      return TrellisWindow(order, 2, packed.data(), TrellisToken(place), channel);
    };
    SetTrellisSymbol(order, 2, TrellisToken(63), 5, 3, packed.data());
    SetTrellisSymbol(order, 2, TrellisToken(0), 5, 1, packed.data());
    SetTrellisSymbol(order, 2, TrellisToken(1), 5, 2, packed.data());
    EXPECT_EQ(window(0, 5), 1 + 3 * 4);
    EXPECT_EQ(window(1, 5), 2 + 1 * 4 + 3 * 16);
    EXPECT_EQ(window(3, 5), 2 * 16);
    EXPECT_EQ(window(3, 6), 0);
  }
}

// The comment on packing, by hand: place 1 of channel 6 is bits 12 to 13 (18 to 20) of its run 0.
TEST(TrellisTest, SymbolsLieWhereTheFormatSays) {
  std::vector<std::byte> two(TileBytes(2)), three(TileBytes(3));
  SetTrellisSymbol(TileOrder::kTokenLane, 2, 1, 6, 3, two.data());  // part 1, run 2
  EXPECT_EQ(two[64 + 2 * 2 + 1], std::byte{3 << 4});
  SetTrellisSymbol(TileOrder::kTokenLane, 3, 1, 6, 7, three.data());  // the last byte, second part
  EXPECT_EQ(three[128 + 2 * 2 + 1], std::byte{7 << 2});
  SetTrellisSymbol(TileOrder::kChannelLane, 3, 1, 6, 7, three.data());  // part 0, run 12
  EXPECT_EQ(three[128 + 2 * 12], std::byte{7 << 2});
}

TEST(TrellisTest, PackingSetsEverySymbol) {
  for (const TileOrder order : {TileOrder::kTokenLane, TileOrder::kChannelLane}) {
    Page page({4, 3, 2, 1});
    page.EncodeByRow(ScaleRule::kUnbiased);
    std::vector<std::byte> want(TileBytes(8) * 4);
    std::byte* tile = want.data();
    for (int i = 0; i < 4; tile += TileBytes(page.bits[static_cast<size_t>(i)]), ++i) {
      for (int t = 0; t < kTokens; ++t) {
        for (int c = 0; c < kTileChannels; ++c) {
          const uint8_t code = page.codes[static_cast<size_t>(t * page.dim + i * kTileChannels + c)];
          SetTrellisSymbol(order, page.bits[static_cast<size_t>(i)], t, c, code, tile);
        }
      }
    }
    EXPECT_EQ(page.Packed(order), want);
  }
}

// Measured against what the codes are for: better than scalar codes, not better than the training promised.
TEST(TrellisTest, ReachesItsDistortion) {
  for (uint8_t width = 1; width <= kMaxTrellisBits; ++width) {
    Page page(Bits(8, width));
    page.EncodeByRow(ScaleRule::kLeastSquares);
    std::vector<std::byte> levels(kTileCodes * 8);
    TrellisExpand(TileOrder::kTokenLane, page.bits.data(), 8, page.Packed(TileOrder::kTokenLane).data(), levels.data());
    const Codebook& book = TrellisCodebooks().by_bits[width];
    double error = 0.0;
    double energy = 0.0;
    for (int t = 0; t < kTokens; ++t) {
      for (int c = 0; c < page.dim; ++c) {
        const double row = page.rows[static_cast<size_t>(t * page.dim + c)];
        const double unit = (LevelAt(levels, TileOrder::kTokenLane, t, c) - book.center) * book.step;
        error += std::pow(row - page.scales[static_cast<size_t>(t)] * unit, 2);
        energy += row * row;
      }
    }
    EXPECT_GT(error / energy, 0.93 * book.distortion) << int{width};
    EXPECT_LT(error / energy, 1.03 * book.distortion) << int{width};
    EXPECT_LT(book.distortion, 0.83 * LloydMaxCodebooks().by_bits[width].distortion);
  }
}

// No other circular path of one channel is far better than the one found; all 2^12 of a short alphabet would
// be too many, so single symbols are changed.
TEST(TrellisTest, NoSingleSymbolCanBeImproved) {
  Page page(Bits(1, 2));
  page.EncodeByRow(ScaleRule::kLeastSquares);
  const auto cost = [&](const std::vector<std::byte>& packed, int channel) {
    double sum = 0.0;
    for (int t = 0; t < kTokens; ++t) {
      const int level = TrellisLevels(2)[TrellisWindow(TileOrder::kTokenLane, 2, packed.data(), t, channel)];
      sum += std::pow(page.ticks[static_cast<size_t>(t * 16 + channel)] - 4 * (level - 128), 2);
    }
    return sum;
  };
  const std::vector<std::byte> best = page.Packed(TileOrder::kTokenLane);
  for (int channel = 0; channel < 16; channel += 5) {
    for (int place = 8; place < 56; ++place) {  // away from the seam, where the path is the best of all
      const int t = TrellisToken(place);
      for (uint8_t symbol = 0; symbol < 4; ++symbol) {
        Page changed = page;
        changed.codes[static_cast<size_t>(t * 16 + channel)] = symbol;
        EXPECT_GE(cost(changed.Packed(TileOrder::kTokenLane), channel), cost(best, channel));
      }
    }
  }
}

const Bits kMixed = {4, 3, 2, 1, 0, 6, 8, 2};

TEST(TrellisTest, EveryTargetEncodesTheSame) {
  for (const ScaleRule rule : {ScaleRule::kLeastSquares, ScaleRule::kUnbiased}) {
    Page want(kMixed);
    want.EncodeByRow(rule);
    for (const std::string& target : SimdTargets()) {
      ASSERT_TRUE(SetSimdTarget(target));
      Page got(kMixed);
      for (int t = 0; t < kTokens; t += kStripRows) {
        Strip strip;
        LoadStrip(&got.rows[static_cast<size_t>(t * got.dim)], static_cast<size_t>(got.dim), kStripRows, got.dim,
                  strip.values);
        GetTrellisKernels().ticks(got.Quantizer(rule), strip.values, &got.ticks[static_cast<size_t>(t * got.dim)],
                                  &got.gains[static_cast<size_t>(t)]);
      }
      int different = 0;
      for (size_t i = 0; i < got.Size(); ++i) different += got.ticks[i] != want.ticks[i];
      EXPECT_LE(different, 4) << target;
      // From the same ticks on there is no rounding but in the scales.
      GetTrellisKernels().codes(got.Quantizer(rule), want.ticks.data(), want.gains.data(), got.codes.data(),
                                got.scales.data());
      EXPECT_EQ(got.codes, want.codes) << target;
      for (size_t t = 0; t < kTokens; ++t) EXPECT_NEAR(got.scales[t], want.scales[t], 1e-5f * want.scales[t]) << target;
    }
  }
  SetSimdTarget("");
}

TEST(TrellisTest, EveryTargetExpandsTheSame) {
  std::mt19937 rng(3);
  std::vector<std::byte> packed(TileBytes(8) * kMixed.size());
  for (std::byte& b : packed) b = static_cast<std::byte>(rng());
  for (const TileOrder order : {TileOrder::kTokenLane, TileOrder::kChannelLane}) {
    std::vector<std::byte> want(kTileCodes * 7);
    TrellisExpand(order, kMixed.data(), 8, packed.data(), want.data());
    for (const std::string& target : SimdTargets()) {
      ASSERT_TRUE(SetSimdTarget(target));
      std::vector<std::byte> got(want.size());
      GetTrellisExpander()(order, kMixed.data(), 8, packed.data(), got.data());
      EXPECT_EQ(got, want) << target;
    }
  }
  SetSimdTarget("");
}

}  // namespace
}  // namespace kvant
