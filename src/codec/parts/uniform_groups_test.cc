#include "codec/parts/uniform_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "codec/parts/uniform_codec.h"
#include "codec/test_rows.h"

namespace kvant {
namespace {

struct Config {
  Side side;
  GroupAxis axis;
  int dim, bits, group;
  GroupRange range = {};
};

std::vector<Config> Configs() {
  std::vector<Config> configs;
  for (Side side : {Side::kKey, Side::kValue}) {
    for (int bits : {1, 2, 3, 4, 8}) {
      for (int dim : {16, 80, 128, 256}) {
        for (int group : {32, 64}) configs.push_back({side, GroupAxis::kChannel, dim, bits, group});
        for (int group : {32, 128, dim}) {
          if (ValidGroup(GroupAxis::kToken, dim, group)) configs.push_back({side, GroupAxis::kToken, dim, bits, group});
        }
      }
    }
  }
  return configs;
}

/// Configs() and others whose ranges are no extremes.
std::vector<Config> AllConfigs() {
  std::vector<Config> configs = Configs();
  for (Side side : {Side::kKey, Side::kValue}) {
    for (int dim : {16, 80, 128}) {
      for (int group : {32, 64}) {
        for (GroupRange range : {GroupRange{RangeRule::kSpread, 1.3f}, GroupRange{RangeRule::kSign, 1.0f},
                                 GroupRange{RangeRule::kShrunk, 0.3f}, GroupRange{RangeRule::kQuantile, 0.16f},
                                 GroupRange{RangeRule::kQuantile, kMaxQuantile}}) {
          configs.push_back({side, GroupAxis::kChannel, dim, 1, group, range});
        }
        configs.push_back({side, GroupAxis::kChannel, dim, 2, group, {RangeRule::kSpread, 2.0f}});
      }
      for (GroupRange range : {GroupRange{RangeRule::kSpread, 1.3f}, GroupRange{RangeRule::kSign, 1.0f},
                               GroupRange{RangeRule::kShrunk, 0.3f}}) {
        configs.push_back({side, GroupAxis::kToken, dim, 1, dim, range});
      }
    }
  }
  return configs;
}

std::string Name(const Config& c) {
  return StrFormat("side %d axis %d dim %d bits %d group %d rule %d", static_cast<int>(c.side),
                   static_cast<int>(c.axis), c.dim, c.bits, c.group, static_cast<int>(c.range.rule));
}

/// A state and one block of it.
struct Fixture {
  explicit Fixture(const Config& c) {
    auto made = MakeUniformState({.side = c.side, .dim = c.dim}, c.axis, c.bits, c.group, c.range);
    state = std::move(*made);
    block = AlignedBuffer<std::byte>(state->layout.block_bytes());
  }
  const UniformGroups& groups() const { return static_cast<const UniformState&>(*state).groups; }
  Status Encode(const CodecVerbs& verbs, const AlignedBuffer<float>& rows) {
    return verbs.encode(*state, {}, rows.data(), block.data());
  }
  Status Decode(const CodecVerbs& verbs, AlignedBuffer<float>& rows) {
    return verbs.decode(*state, {}, block.data(), rows.data());
  }
  std::unique_ptr<CodecState> state;
  AlignedBuffer<std::byte> block;
};

AlignedBuffer<float> Rows(int dim, const std::function<float(int token, int channel)>& value) {
  AlignedBuffer<float> rows(static_cast<size_t>(kTokensPerPage * dim));
  for (int t = 0; t < kTokensPerPage; ++t) {
    for (int c = 0; c < dim; ++c) rows[static_cast<size_t>(t * dim + c)] = value(t, c);
  }
  return rows;
}

/// Rows that have broken quantisers: signs of zero, subnormal steps, means far from zero, one outlier.
std::vector<AlignedBuffer<float>> HardRows(int dim) {
  std::vector<AlignedBuffer<float>> all;
  all.push_back(NormalRows(kTokensPerPage, dim, 7));
  const AlignedBuffer<float> noise = NormalRows(kTokensPerPage, dim, 8);
  const auto at = [&](int t, int c) { return noise[static_cast<size_t>(t * dim + c)]; };
  all.push_back(Rows(dim, [](int, int) { return 0.0f; }));
  all.push_back(Rows(dim, [](int t, int c) { return (t + c) % 2 ? 0.0f : -0.0f; }));
  all.push_back(Rows(dim, [](int, int) { return -0.0f; }));
  all.push_back(Rows(dim, [](int, int c) { return 0.1f * static_cast<float>(c) - 3.0f; }));
  all.push_back(Rows(dim, [&](int t, int c) { return 1000.0f + 1e-3f * at(t, c); }));
  all.push_back(Rows(dim, [&](int t, int c) { return 3e-7f * at(t, c); }));
  all.push_back(Rows(dim, [&](int t, int c) { return t == 40 && c == 5 ? -6e4f : at(t, c); }));
  all.push_back(Rows(dim, [](int t, int c) { return static_cast<float>((5 * t + 3 * c) % 16) / 6.0f; }));  // ties
  return all;
}

double RelativeError(std::span<const float> got, std::span<const float> want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

class UniformGroupsTargets : public testing::Test {
 protected:
  void TearDown() override { SetSimdTarget(""); }
};

TEST(UniformGroups, GroupsMustCoverABlock) {
  EXPECT_TRUE(ValidGroup(GroupAxis::kChannel, 80, 32));
  EXPECT_TRUE(ValidGroup(GroupAxis::kChannel, 80, 64));
  EXPECT_FALSE(ValidGroup(GroupAxis::kChannel, 128, 128));
  EXPECT_FALSE(ValidGroup(GroupAxis::kChannel, 128, 16));
  EXPECT_TRUE(ValidGroup(GroupAxis::kToken, 96, 32));
  EXPECT_TRUE(ValidGroup(GroupAxis::kToken, 80, 80));
  EXPECT_TRUE(ValidGroup(GroupAxis::kToken, 16, 16));
  EXPECT_FALSE(ValidGroup(GroupAxis::kToken, 80, 32));
  EXPECT_FALSE(ValidGroup(GroupAxis::kToken, 128, 16));
  EXPECT_FALSE(ValidGroup(GroupAxis::kToken, 128, 0));
}

TEST(UniformGroups, CodesRoundHalfToEvenAndClamp) {
  const GroupParams p = FitGroup(-1.0f, 2.0f, 2);
  EXPECT_EQ(p.scale.bits, 0x3C00);
  EXPECT_EQ(p.min.bits, 0xBC00);
  const std::pair<float, int> kExpected[] = {{-1.0f, 0}, {-0.5f, 0}, {-0.4f, 1}, {0.5f, 2}, {1.5f, 2}, {2.0f, 3}};
  for (const auto& [value, code] : kExpected) EXPECT_EQ(EncodeUniform(p, 3, value), code) << value;
  EXPECT_EQ(EncodeUniform(p, 3, -9.0f), 0);
  EXPECT_EQ(EncodeUniform(p, 3, 9.0f), 3);
}

TEST(UniformGroups, ConstantGroupHasScaleZeroAndCodesZero) {
  const GroupParams p = FitGroup(1.5f, 1.5f, 4);
  EXPECT_EQ(p.scale.bits, 0);
  EXPECT_EQ(p.inverse, 0.0f);
  EXPECT_EQ(EncodeUniform(p, 15, 1.5f), 0);
}

TEST(UniformGroups, ScaleIsFittedToTheStoredMin) {
  // The fp16 nearest to 2001.4 is 2001.
  const GroupParams p = FitGroup(2001.4f, 2004.4f, 2);
  EXPECT_EQ(p.min_value, 2001.0f);
  EXPECT_NEAR(ToFloat(p.scale), (2004.4f - 2001.0f) / 3, 1e-3);
}

TEST(GroupRange, EndsOfKnownValues) {
  float values[] = {3, -1, 0, 1, 7, 2, 4, 0};  // mean 2, mean distance 2, mean magnitude 2.25
  const auto find = [&](RangeRule rule, float amount) {
    const RangeEnds a = FindRange({rule, amount}, SumOrder::kSequential, values, 8);
    const RangeEnds b = FindRange({rule, amount}, SumOrder::kInSixteens, values, 8);
    EXPECT_EQ(a.low, b.low);
    EXPECT_EQ(a.high, b.high);
    return std::pair(a.low, a.high);
  };
  EXPECT_EQ(find(RangeRule::kExtremes, 1.0f), std::pair(-1.0f, 7.0f));
  EXPECT_EQ(find(RangeRule::kShrunk, 0.5f), std::pair(-0.5f, 3.5f));
  EXPECT_EQ(find(RangeRule::kQuantile, 0.16f), std::pair(0.0f, 4.0f));
  EXPECT_EQ(find(RangeRule::kSpread, 1.0f), std::pair(0.0f, 4.0f));
  EXPECT_EQ(find(RangeRule::kSpread, 1.5f), std::pair(-1.0f, 5.0f));
  EXPECT_EQ(find(RangeRule::kSign, 2.0f), std::pair(-4.5f, 4.5f));
}

TEST(UniformGroups, SymmetricGroupsKeepNoMins) {
  Fixture f({Side::kKey, GroupAxis::kChannel, 128, 1, 32, {RangeRule::kSign, 1.0f}});
  EXPECT_EQ(f.state->layout.streams().size(), 2u);
  EXPECT_EQ(f.state->layout.block_bytes() * 8, 64u * 128 * 3 / 2);
  const auto rows = Rows(128, [](int t, int) { return t % 2 == 0 ? 1.0f : -2.0f; });
  AlignedBuffer<float> decoded(rows.size());
  ASSERT_TRUE(f.Encode(UniformFastVerbs(), rows).ok());
  ASSERT_TRUE(f.Decode(UniformFastVerbs(), decoded).ok());
  for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(decoded[i], rows[i] > 0 ? 1.5f : -1.5f) << i;
}

TEST_F(UniformGroupsTargets, BytesAreTheReferences) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    ASSERT_EQ(SimdTarget(), target);
    for (const Config& config : AllConfigs()) {
      for (const AlignedBuffer<float>& rows : HardRows(config.dim)) {
        Fixture reference(config), fast(config);
        std::memset(fast.block.data(), 0xA5, fast.block.size());  // encode must write every byte
        ASSERT_TRUE(reference.Encode(kUniformReferenceVerbs, rows).ok());
        ASSERT_TRUE(fast.Encode(UniformFastVerbs(), rows).ok());
        ASSERT_EQ(std::memcmp(reference.block.data(), fast.block.data(), fast.block.size()), 0)
            << target << ' ' << Name(config);
      }
    }
  }
}

TEST_F(UniformGroupsTargets, DecodeIsTheReferences) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const Config& config : AllConfigs()) {
      for (const AlignedBuffer<float>& rows : HardRows(config.dim)) {
        Fixture f(config);
        AlignedBuffer<float> want(rows.size()), got(rows.size());
        ASSERT_TRUE(f.Encode(kUniformReferenceVerbs, rows).ok());
        ASSERT_TRUE(f.Decode(kUniformReferenceVerbs, want).ok());
        ASSERT_TRUE(f.Decode(UniformFastVerbs(), got).ok());
        ASSERT_THAT(got.span(), testing::ElementsAreArray(want.span())) << target << ' ' << Name(config);
      }
    }
  }
}

TEST(UniformGroups, ErrorIsAtMostHalfAStep) {
  for (const Config& config : Configs()) {
    Fixture f(config);
    const AlignedBuffer<float> rows = NormalRows(kTokensPerPage, config.dim, 3);
    AlignedBuffer<float> decoded(rows.size());
    ASSERT_TRUE(f.Encode(kUniformReferenceVerbs, rows).ok());
    ASSERT_TRUE(f.Decode(kUniformReferenceVerbs, decoded).ok());
    for (int t = 0; t < kTokensPerPage; ++t) {
      for (int c = 0; c < config.dim; ++c) {
        const size_t i = static_cast<size_t>(t * config.dim + c);
        const float scale = ToFloat(F16{f.groups().scales(f.block.data())[f.groups().GroupIndex(t, c)]});
        // The ends of a group are off by the rounding of its fp16 min and scale at most.
        const float rounding = 0.002f * (std::abs(rows[i]) + 1.0f);
        ASSERT_LE(std::abs(rows[i] - decoded[i]), 0.5f * scale + rounding) << Name(config);
      }
    }
  }
}

TEST(UniformGroups, DecodedBlockEncodesToItself) {
  for (const Config& config : Configs()) {
    Fixture first(config), second(config);
    const AlignedBuffer<float> rows = NormalRows(kTokensPerPage, config.dim, 4);
    AlignedBuffer<float> decoded(rows.size());
    ASSERT_TRUE(first.Encode(UniformFastVerbs(), rows).ok());
    ASSERT_TRUE(first.Decode(UniformFastVerbs(), decoded).ok());
    ASSERT_TRUE(second.Encode(UniformFastVerbs(), decoded).ok());
    EXPECT_EQ(std::memcmp(first.block.data(), second.block.data(), first.block.size()), 0) << Name(config);
  }
}

TEST_F(UniformGroupsTargets, ScoresEqualDecodedProducts) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const Config& config : AllConfigs()) {
      if (config.side != Side::kKey) continue;
      for (int heads : {1, 4, 7, kMaxHeads}) {
        Fixture f(config);
        const auto rows = NormalRows(kTokensPerPage, config.dim, 5);
        const auto queries = NormalRows(heads, config.dim, 6);
        AlignedBuffer<std::byte> prepared(f.state->prepared_head_bytes * static_cast<size_t>(heads));
        AlignedBuffer<float> want(static_cast<size_t>(heads * kTokensPerPage)), got(want.size());
        ASSERT_TRUE(f.Encode(UniformFastVerbs(), rows).ok());
        ReferenceScoreGroups(f.groups(), f.block.data(), queries.data(), heads, want.data());
        UniformFastVerbs().prepare_query(*f.state, {}, queries.data(), heads, prepared.data());
        UniformFastVerbs().score(*f.state, {}, f.block.data(), prepared.data(), heads, got.data());
        const double bound = QueryPlanes(config.bits) == 1 ? kMaxCoarseScoreError : 1e-3;
        ASSERT_LT(RelativeError(got.span(), want.span()), bound) << target << ' ' << Name(config);
      }
    }
  }
}

TEST_F(UniformGroupsTargets, AccumulateAddsWeightedDecodedRows) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const Config& config : AllConfigs()) {
      if (config.side != Side::kValue) continue;
      for (int heads : {1, 4, 7, kMaxHeads}) {
        Fixture f(config);
        const auto rows = NormalRows(kTokensPerPage, config.dim, 5);
        auto weights = NormalRows(heads, kTokensPerPage, 6);
        for (float& w : weights.span()) w = std::exp(w);
        AlignedBuffer<float> want = NormalRows(heads, config.dim, 7), got(want.size());
        std::memcpy(got.data(), want.data(), want.size() * sizeof(float));
        ASSERT_TRUE(f.Encode(UniformFastVerbs(), rows).ok());
        ReferenceAccumulateGroups(f.groups(), f.block.data(), weights.data(), heads, want.data());
        UniformFastVerbs().accumulate(*f.state, {}, f.block.data(), weights.data(), heads, got.data());
        const double bound = QueryPlanes(config.bits) == 1 ? kMaxCoarseScoreError : 1e-3;
        ASSERT_LT(RelativeError(got.span(), want.span()), bound) << target << ' ' << Name(config);
      }
    }
  }
}

TEST(UniformGroups, ZeroWeightsAddNothing) {
  for (GroupAxis axis : {GroupAxis::kChannel, GroupAxis::kToken}) {
    Fixture f({Side::kValue, axis, 128, 2, 32});
    const auto rows = NormalRows(kTokensPerPage, 128, 5);
    const AlignedBuffer<float> weights(2 * kTokensPerPage);
    AlignedBuffer<float> acc(2 * 128);
    ASSERT_TRUE(f.Encode(UniformFastVerbs(), rows).ok());
    UniformFastVerbs().accumulate(*f.state, {}, f.block.data(), weights.data(), 2, acc.data());
    EXPECT_THAT(acc.span(), testing::Each(0.0f));
  }
}

TEST(UniformGroups, ValuesBeyondFp16AreRefused) {
  for (GroupAxis axis : {GroupAxis::kChannel, GroupAxis::kToken}) {
    for (const CodecVerbs& verbs : {kUniformReferenceVerbs, UniformFastVerbs()}) {
      Fixture f({Side::kKey, axis, 128, 2, 32});
      const auto low = Rows(128, [](int t, int c) { return t == 9 && c == 9 ? -7e4f : 1.0f; });
      EXPECT_EQ(f.Encode(verbs, low).code(), StatusCode::kInvalidArgument);
      const auto wide = Rows(128, [](int t, int c) { return t == 9 && c == 9 ? 3e5f : 1.0f; });
      EXPECT_EQ(f.Encode(verbs, wide).code(), StatusCode::kInvalidArgument);
    }
  }
}

TEST(UniformGroups, ParametersThatNoEncoderWritesAreCorruption) {
  for (GroupAxis axis : {GroupAxis::kChannel, GroupAxis::kToken}) {
    for (const CodecVerbs& verbs : {kUniformReferenceVerbs, UniformFastVerbs()}) {
      Fixture f({Side::kValue, axis, 64, 4, 32});
      AlignedBuffer<float> rows = NormalRows(kTokensPerPage, 64, 1);
      ASSERT_TRUE(f.Encode(verbs, rows).ok());
      uint16_t* last_scale = f.groups().scales(f.block.data()) + f.groups().num_groups() - 1;
      uint16_t* last_min = f.groups().mins(f.block.data()) + f.groups().num_groups() - 1;
      for (auto [word, bad] : {std::pair(last_scale, 0x7C00),
                               {last_scale, 0x8001},
                               {last_scale, 0x7E01},
                               {last_min, 0xFC00},
                               {last_min, 0x7FFF}}) {
        const uint16_t good = std::exchange(*word, static_cast<uint16_t>(bad));
        EXPECT_EQ(f.Decode(verbs, rows).code(), StatusCode::kCorruption) << bad;
        *word = good;
      }
      EXPECT_TRUE(f.Decode(verbs, rows).ok());
    }
  }
}

TEST(UniformGroups, OtherPageSizesAreRefused) {
  const auto state = MakeUniformState({.side = Side::kKey, .dim = 128, .tokens = 32}, GroupAxis::kChannel, 2, 32);
  EXPECT_EQ(state.status().code(), StatusCode::kNotSupported);
}

}  // namespace
}  // namespace kvant
