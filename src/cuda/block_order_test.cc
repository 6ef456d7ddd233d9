#include "cuda/block_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/parts/trellis.h"
#include "codec/registry.h"
#include "cuda/run_order.h"

namespace kvant::cuda {
namespace {

struct Case {
  const char* name;
  const char* options;
};
constexpr Case kReadable[] = {
    {"raw", ""},
    {"int", "bits=8"},
    {"int", "bits=4"},
    {"int", "bits=3"},
    {"int", "bits=2"},
    {"decoquant", "bits=4"},
    {"decoquant", "bits=3"},
    {"decoquant", "bits=2"},
    {"turboquant", "bits=3"},
    {"turboquant", "mean=on"},
    {"kivi", "bits=2"},
    {"kivi", "bits=4,group=64"},
    {"decoquant", "bits=3,code=trellis"},
    {"decoquant", "bits=2,code=trellis"},
    {"qjl", ""},
};

Codec Make(const Case& c, Side side, int dim) {
  const auto options = ParseCodecOptions(*FindCodec(c.name), c.options);
  auto codec = MakeCodec(c.name, *options, {.side = side, .dim = dim});
  EXPECT_TRUE(codec.ok()) << codec.status().message();
  return *codec;
}

TEST(FragmentOrder, EveryBitOfAPlaneHasOneCode) {
  for (const int dim : kDeviceDims) {
    for (const int width : {1, 2, 4, 8, 16}) {
      for (const PairOrder order : {PairOrder::kSplit, PairOrder::kJoined}) {
        if (width == 1 && order == PairOrder::kJoined) continue;  // only completes split codes of three bits
        std::vector<int> seen(static_cast<size_t>(PlaneBytes(dim, width)) * 8);
        for (int i = 0; i < kPageTokens * dim; ++i) {
          const Fragment g = FragmentOf(order == PairOrder::kSplit, i / dim, i % dim);
          const Field field = FieldOf(dim, width, g.step, g.reg);
          const int bit =
              PlaneWord(dim, width, g.unit, g.lane, field.word) * 32 + FieldShift(order, width, field.index, g.half);
          for (int b = 0; b < width; ++b) ++seen[static_cast<size_t>(bit + b)];
        }
        EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<long>(seen.size())) << dim << ' ' << width;
      }
    }
  }
}

TEST(RunOrder, EveryBitHasOneSymbol) {
  for (const int dim : kDeviceDims) {
    for (const int bits : {2, 3}) {
      for (const bool is_value : {false, true}) {
        std::vector<int> seen(static_cast<size_t>(64 * dim * bits));
        for (int i = 0; i < kPageTokens * dim * bits; ++i) {
          const int place = i / bits / dim;
          const RunPlace at = RunOf(is_value, place, i / bits % dim);
          const int bit = SymbolBit(bits, place) + i % bits;
          const WordByte byte = RunByteOf(bits, at.run, bit / 8);
          ++seen[static_cast<size_t>(RunWord(bits, at.step, at.lane, byte.word) * 32 + byte.byte * 8 + bit % 8)];
        }
        EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<long>(seen.size())) << dim << ' ' << bits;
      }
    }
  }
}

TEST(RunOrder, FollowsTheTrellis) {
  for (int place = 0; place < kPageTokens; ++place) {
    const int unit = place % 8 / 2;
    EXPECT_EQ(TokenAt(TokenOrder::kRuns, unit, place / 8 + place % 2 * 8), TrellisToken(place));
    EXPECT_EQ(TokenParam(TokenOrder::kRuns, TrellisToken(place)), place);
  }
}

TEST(FragmentOrder, ParametersArePermuted) {
  for (const int dim : kDeviceDims) {
    std::vector<int> seen(static_cast<size_t>(dim));
    for (int c = 0; c < dim; ++c) ++seen[static_cast<size_t>(ChannelParam(c))];
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), dim);
  }
  for (const TokenOrder order : {TokenOrder::kUnits, TokenOrder::kRuns}) {
    for (int g = 0; g < 8; ++g) {
      for (int i = 0; i < 8; ++i) EXPECT_EQ(TokenParam(order, TokenAt(order, i / 2, g + i % 2 * 8)), 8 * g + i);
    }
  }
}

// m16n8k16: lane 5 = (g 1, t 1) holds rows 1 and 9, columns 2, 3, 10, 11.
TEST(FragmentOrder, FollowsTheMatrixInstruction) {
  const Fragment key = FragmentOf(false, 16 + 9, 32 + 3);
  EXPECT_EQ(key.unit, 1);
  EXPECT_EQ(key.step, 2);
  EXPECT_EQ(key.lane, 5);
  EXPECT_EQ(key.reg, 1);
  EXPECT_EQ(key.half, 1);
  const Fragment value = FragmentOf(true, 16 + 10, 32 + 1);
  EXPECT_EQ(value.lane, 5);
  EXPECT_EQ(value.reg, 2);
  EXPECT_EQ(value.half, 0);
}

void ExpectRoundTrip(const Case& c, Side side, int dim) {
  const Codec codec = Make(c, side, dim);
  const Result<DeviceFormat> format = DeviceFormatOf(codec);
  ASSERT_TRUE(format.ok()) << c.name << c.options << ": " << format.status().message();
  AlignedBuffer<float> rows(static_cast<size_t>(kPageTokens * dim));
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  for (float& x : rows.span()) x = normal(rng);
  AlignedBuffer<std::byte> block(codec.block_bytes());
  AlignedBuffer<std::byte> device(codec.block_bytes());
  AlignedBuffer<std::byte> back(codec.block_bytes());
  ASSERT_TRUE(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).ok());
  ToDeviceOrder(codec, *format, block.data(), device.data());
  EXPECT_FALSE(std::ranges::equal(block.span(), device.span()));
  FromDeviceOrder(codec, *format, device.data(), back.data());
  EXPECT_TRUE(std::ranges::equal(block.span(), back.span())) << c.name << ' ' << c.options << ' ' << dim;
}

TEST(BlockOrder, RoundTripsToTheBytesOfTheReference) {
  for (const Case& c : kReadable) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      for (const int dim : kDeviceDims) ExpectRoundTrip(c, side, dim);
    }
  }
}

TEST(BlockOrder, SketchesRoundTrip) {
  for (const char* options : {"first_layers=0", "outliers=0", "first_layers=0,outliers=0"}) {
    for (const int dim : kDeviceDims) ExpectRoundTrip({"qjl", options}, Side::kKey, dim);
  }
}

TEST(BlockOrder, RefusesWhatNoKernelReads) {
  constexpr Case kRefused[] = {{"turboquant", "bits=2.5"},
                               {"turboquant", "rotate=dense"},
                               {"turboquant", "bits=3,residual=orthogonal"},
                               {"int", "bits=4,axis=token,group=32"},
                               {"decoquant", "bits=6"},
                               {"decoquant", "bits=2.5"},
                               {"decoquant", "bits=4,code=trellis"},
                               {"decoquant", "gauge=klt"},
                               {"qjl", "outliers=4"},
                               {"qjl", "sketch=144,first_layers=0"},
                               {"raw", "type=bf16"}};
  for (const Case& c : kRefused) {
    const Result<DeviceFormat> format = DeviceFormatOf(Make(c, Side::kKey, 128));
    ASSERT_FALSE(format.ok()) << c.name << ' ' << c.options;
    EXPECT_EQ(format.status().code(), StatusCode::kNotSupported);
  }
  EXPECT_FALSE(DeviceFormatOf(Make({"int", ""}, Side::kKey, 96)).ok());
}

TEST(BlockOrder, RefusesScalesThatWeightsCannotTake) {
  const Codec codec = Make({"int", "bits=2"}, Side::kValue, 64);
  const Result<DeviceFormat> format = DeviceFormatOf(codec);
  AlignedBuffer<float> rows(static_cast<size_t>(kPageTokens * 64));
  AlignedBuffer<std::byte> block(codec.block_bytes());
  rows[5] = 2900.0f;
  ASSERT_TRUE(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).ok());
  EXPECT_TRUE(CheckDeviceRange(codec, *format, block.data()).ok());
  rows[5] = 3100.0f;
  ASSERT_TRUE(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).ok());
  EXPECT_EQ(CheckDeviceRange(codec, *format, block.data()).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvant::cuda
