// A run of latents through the integer kernels is what its definition says, on every SIMD target.
#include "codec/parts/latent_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "codec/parts/fixed_point.h"

namespace kvant {
namespace {

constexpr int kHeads = 3;

// A run with random codes, and its latents times the token scales by definition.
struct CodedRun {
  std::vector<uint8_t> bits;
  LatentCodes codes;
  AlignedBuffer<std::byte> packed;
  AlignedBuffer<float> scales{64};
  std::vector<float> values;  // [64][channels]

  CodedRun(TileOrder order, const CodebookSet& books, std::vector<uint8_t> widths, bool trellis)
      : bits(std::move(widths)) {
    codes = {order, &books, bits.data(), static_cast<int>(bits.size()), trellis};
    std::mt19937 rng(1);
    size_t bytes = 0;
    for (const uint8_t b : bits) bytes += TileBytes(b);
    packed = AlignedBuffer<std::byte>(bytes);
    for (std::byte& b : packed.span()) b = static_cast<std::byte>(rng());
    for (float& s : scales.span()) s = 0.5f + static_cast<float>(rng() % 100) / 100.0f;
    values.assign(static_cast<size_t>(64 * codes.channels()), 0.0f);
    ForEachLatent(codes, packed.data(), [&](int t, int c, float value) {
      values[static_cast<size_t>(t * codes.channels() + c)] = value * scales[static_cast<size_t>(t)];
    });
  }
  float value(int t, int c) const { return values[static_cast<size_t>(t * codes.channels() + c)]; }
};

std::vector<CodedRun> Runs(TileOrder order) {
  std::vector<CodedRun> runs;
  runs.emplace_back(order, LloydMaxCodebooks(), std::vector<uint8_t>{4, 3, 0, 2, 1}, false);
  runs.emplace_back(order, UniformCodebooks(), std::vector<uint8_t>{8, 6, 4, 4}, false);
  runs.emplace_back(order, TrellisCodebooks(), std::vector<uint8_t>{3, 3, 0, 8}, true);
  return runs;
}

std::vector<float> Random(size_t count, bool positive) {
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& v : out) v = positive ? std::abs(normal(rng)) : normal(rng);
  return out;
}

// A device that only knows the format reads the same values.
TEST(LatentDeviceFormat, LevelsAreThoseOfTheDefinition) {
  for (const CodebookSet* books : {&LloydMaxCodebooks(), &UniformCodebooks(), &TrellisCodebooks()}) {
    const bool trellis = books == &TrellisCodebooks();
    for (const uint8_t bits : {uint8_t{2}, uint8_t{3}, uint8_t{4}}) {
      const CodedRun run(TileOrder::kTokenLane, *books, {bits}, trellis);
      const DeviceFormat format = LatentDeviceFormat(run.codes, ScaleRule::kUnbiased);
      EXPECT_EQ(format.bits, bits);
      EXPECT_TRUE(format.encodable);
      ForEachLatent(run.codes, run.packed.data(), [&](int t, int c, float value) {
        const int index = trellis ? TrellisWindow(run.codes.order, bits, run.packed.data(), t, c)
                                  : TileCode(run.codes.order, bits, run.packed.data(), t, c);
        EXPECT_EQ(format.levels[index] * format.step, value);
      });
    }
  }
}

class LatentCodesTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(SetSimdTarget(GetParam())); }
  void TearDown() override { SetSimdTarget(""); }
};

TEST_P(LatentCodesTest, ScoresAreQueryTimesLatents) {
  for (const CodedRun& run : Runs(TileOrder::kTokenLane)) {
    const int channels = run.codes.channels();
    const std::vector<float> q = Random(static_cast<size_t>(kHeads * channels), false);
    AlignedBuffer<std::byte> bytes(kHeads * LatentQueryHeadBytes(channels));
    const LatentQuery query(bytes.data(), kHeads, 2);
    const float bias[kHeads] = {1.0f, -2.0f, 0.0f};
    AlignedBuffer<float> scores(kHeads * 64);
    PrepareLatents(run.codes, q.data(), static_cast<size_t>(channels), kHeads, query);
    ScoreLatents(run.codes, run.packed.data(), run.scales.data(), query, kHeads, bias, Store::kSet, scores.data(),
                 nullptr);
    ScoreLatents(run.codes, run.packed.data(), run.scales.data(), query, kHeads, nullptr, Store::kAdd, scores.data(),
                 nullptr);
    for (int h = 0; h < kHeads; ++h) {
      for (int t = 0; t < 64; ++t) {
        double want = 0.0;
        for (int c = 0; c < channels; ++c) want += 2.0 * q[static_cast<size_t>(h * channels + c)] * run.value(t, c);
        EXPECT_NEAR(scores[static_cast<size_t>(h * 64 + t)], want + bias[h], 2e-3 * channels) << h << " " << t;
      }
    }
  }
}

TEST_P(LatentCodesTest, AccumulatedLevelsBecomeLatents) {
  for (const CodedRun& run : Runs(TileOrder::kChannelLane)) {
    const int channels = run.codes.channels();
    const auto stride = static_cast<size_t>(channels + 16);
    const std::vector<float> weights = Random(kHeads * 64, true);
    AlignedBuffer<float> acc(kHeads * stride);
    Strip strip;
    for (int repeat = 0; repeat < 2; ++repeat) {
      AccumulateLatents(run.codes, run.packed.data(), run.scales.data(), weights.data(), kHeads, acc.data(), stride,
                        acc.data() + channels, nullptr);
    }
    LoadStrip(acc.data(), stride, kHeads, channels, strip.values);
    RestoreLatents(run.codes, acc.data() + channels, stride, kHeads, strip.values);
    for (int h = 0; h < kHeads; ++h) {
      for (int c = 0; c < channels; ++c) {
        double want = 0.0;
        for (int t = 0; t < 64; ++t) want += 2.0 * weights[static_cast<size_t>(h * 64 + t)] * run.value(t, c);
        EXPECT_NEAR(strip.values[c * kStripRows + h], want, 0.03) << h << " " << c;
      }
    }
  }
}

TEST_P(LatentCodesTest, LoadedLatentsAreTheDefinition) {
  for (const TileOrder order : {TileOrder::kTokenLane, TileOrder::kChannelLane}) {
    for (const CodedRun& run : Runs(order)) {
      AlignedBuffer<uint8_t> unpacked(64 * kMaxStripDim);
      Strip strip;
      UnpackLatents(run.codes, run.packed.data(), unpacked.data());
      for (int t = 0; t < 64; t += kStripRows) {
        LoadLatents(run.codes, unpacked.data() + t * run.codes.channels(), run.scales.data() + t, strip.values);
        for (int c = 0; c < run.codes.channels(); ++c) {
          for (int r = 0; r < kStripRows; ++r) EXPECT_EQ(strip.values[c * kStripRows + r], run.value(t + r, c));
        }
      }
    }
  }
}

TEST_P(LatentCodesTest, PackingUndoesUnpacking) {
  for (const TileOrder order : {TileOrder::kTokenLane, TileOrder::kChannelLane}) {
    for (const CodedRun& run : Runs(order)) {
      if (run.codes.trellis) continue;  // unpacks to levels
      AlignedBuffer<uint8_t> unpacked(64 * kMaxStripDim);
      AlignedBuffer<std::byte> packed(run.packed.size());
      UnpackLatents(run.codes, run.packed.data(), unpacked.data());
      PackLatents(run.codes, unpacked.data(), packed.data());
      EXPECT_TRUE(std::ranges::equal(packed.span(), run.packed.span()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, LatentCodesTest, ::testing::ValuesIn(SimdTargets()),
                         [](const auto& info) { return info.param; });

TEST(LatentCodes, QueriesOfRunsFollowOneAnother) {
  AlignedBuffer<std::byte> bytes(kHeads * (LatentQueryHeadBytes(32) + LatentQueryHeadBytes(16)));
  LatentQueries queries(bytes.data(), kHeads);
  const LatentQuery first = queries.Next(32, 1), second = queries.Next(16, 2);
  EXPECT_EQ(reinterpret_cast<std::byte*>(first.unit), bytes.data());
  EXPECT_EQ(first.planes, 1);
  EXPECT_EQ(reinterpret_cast<std::byte*>(second.unit), bytes.data() + kHeads * LatentQueryHeadBytes(32));
  EXPECT_EQ(reinterpret_cast<std::byte*>(second.operand + kHeads * 2 * 16), bytes.data() + bytes.size());
}

TEST(LatentCodes, RowsOfCodesAreStoredByTile) {
  const uint8_t bits[] = {2, 0, 4};
  const LatentCodes codes = {TileOrder::kTokenLane, &LloydMaxCodebooks(), bits, 3, false};
  AlignedBuffer<std::byte> packed(TileBytes(6));
  uint8_t row[48] = {};
  row[5] = 3;
  row[32 + 9] = 12;
  SetRowCodes(codes, 17, row, packed.data());
  EXPECT_EQ(TileCode(TileOrder::kTokenLane, 2, packed.data(), 17, 5), 3);
  EXPECT_EQ(TileCode(TileOrder::kTokenLane, 4, packed.data() + TileBytes(2), 17, 9), 12);
}

}  // namespace
}  // namespace kvant
