// Options, the choice of the side, and the row of the registry.
#include "codec/vidkv/vidkv.h"

#include "codec/parts/side_options.h"
#include "codec/parts/uniform_codec.h"

namespace kvant::vidkv {
namespace {

constexpr OptionInfo kOptions[] = {
    {"wide", "0.5", "0.25..0.75 in steps of 0.125", "K: share of the channels that have 2 bits"},
    {"levels", "spread", "spread, sign",
     "K: 1-bit codes stand for mean -+ mean distance, or (as published) for -+ mean magnitude"},
    {"transform", "hadamard", "hadamard, none", "K: what the channels with 1 bit go through"},
    {"salient", "12", "0..24 in steps of 4", "V: tokens of a page with 2 bits"},
    {"gamma", "0.7", "0.3..1.5 in steps of 0.05", "V: values below this share of the mean magnitude become 0"},
    {"stretch", "1.15", "0.5..2 in steps of 0.05", "factor on the levels of 1-bit codes and trits"},
    {"group", "64", "32, 64", "tokens of a channel that share a scale"},
};

constexpr size_t kNumKeyOptions = 3;
constexpr size_t kNumSideOptions = 5;  ///< of keys and of values; the rest is for both

Result<std::unique_ptr<CodecState>> MakeKeys(const BlockShape& shape, const OptionReader& reader, int group,
                                             double stretch) {
  static constexpr std::string_view kLevels[] = {"spread", "sign"};
  static constexpr std::string_view kTransforms[] = {"hadamard", "none"};
  if (shape.dim < 2 * kTileChannels) {
    return Status::NotSupported(
        StrFormat("codec vidkv: keys need a head size of at least %d, not %d", 2 * kTileChannels, shape.dim));
  }
  const Result<double> wide = reader.GetNumber("wide", 0.25, 0.75, 0.125);
  if (!wide.ok()) return wide.status();
  const Result<int> levels = reader.GetChoice("levels", kLevels);
  if (!levels.ok()) return levels.status();
  const Result<int> transform = reader.GetChoice("transform", kTransforms);
  if (!transform.ok()) return transform.status();
  const RangeRule rule = *levels == 0 ? RangeRule::kSpread : RangeRule::kSign;
  return MakeKeyState(
      shape,
      {.wide = *wide, .group = group, .range = {rule, static_cast<float>(stretch)}, .transform = *transform == 0});
}

Result<std::unique_ptr<CodecState>> MakeValues(const BlockShape& shape, const OptionReader& reader, int group,
                                               double stretch) {
  const Result<double> salient = reader.GetNumber("salient", 0, kMaxSalient, 4);
  if (!salient.ok()) return salient.status();
  const Result<double> gamma = reader.GetNumber("gamma", 0.3, 1.5, 0.05);
  if (!gamma.ok()) return gamma.status();
  return MakeValueState(shape,
                        {.group = group, .salient = static_cast<int>(*salient), .gamma = *gamma, .stretch = stretch});
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  static constexpr int kGroups[] = {32, 64};
  if (shape.tokens != kTokensPerPage) {
    return Status::NotSupported(
        StrFormat("codec vidkv needs blocks of %d tokens, not %d", kTokensPerPage, shape.tokens));
  }
  const OptionReader reader(kInfo, options);
  const auto of_a_side = std::span(kOptions).first(kNumSideOptions);
  const auto others = shape.side == Side::kKey ? of_a_side.subspan(kNumKeyOptions) : of_a_side.first(kNumKeyOptions);
  KVANT_TRY(RefuseOtherSide(reader, options, shape.side, others));
  const Result<int> group = reader.GetInt("group", kGroups);
  if (!group.ok()) return group.status();
  const Result<double> stretch = reader.GetNumber("stretch", 0.5, 2.0, 0.05);
  if (!stretch.ok()) return stretch.status();
  if (shape.side == Side::kKey) return MakeKeys(shape, reader, *group, *stretch);
  return MakeValues(shape, reader, *group, *stretch);
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  return (state.shape.side == Side::kKey ? keys::Encode : values::Encode)(state, context, rows, block);
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  return (state.shape.side == Side::kKey ? keys::Decode : values::Decode)(state, context, block, rows);
}

// Errors are measured on 40 blocks each; their spread is a third of the interval.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 2.0625, 0.510, 0.565},
    {"levels=sign,group=32,stretch=1", Side::kKey, 2.3125, 0.485, 0.520},
    {"wide=0.25,transform=none", Side::kKey, 1.8125, 0.540, 0.595},
    {"wide=0.75", Side::kKey, 2.3125, 0.460, 0.525},
    {"", Side::kValue, 2.0, 0.415, 0.450},
    {"salient=0,group=32,stretch=1", Side::kValue, 2.125, 0.405, 0.450},
    {"salient=24", Side::kValue, 2.0625, 0.395, 0.430},
    {"gamma=0.5,salient=4", Side::kValue, 1.9375, 0.445, 0.490},
};

constexpr CodecPair kTypical[] = {
    {"wide=0.75", "salient=24"},
    {"", ""},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "vidkv",
    .summary = "keys with 2 and 1 bits by channel, values as ternary codes with 2 bits for salient tokens",
    .paper = "Tao, Fu, Du et al., VidKV, arXiv:2503.16257",
    .recent_tokens = kRecentTokens,
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .make = Make,
    .reference = {Encode, Decode, uniform_reference::PrepareQuery, keys::Score, values::Accumulate,
                  uniform_reference::Finish},
    .simd = [] { return &SimdVerbs(); },
};

}  // namespace kvant::vidkv
