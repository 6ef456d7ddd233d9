#include "codec/asymkv/asymkv.h"

#include "codec/parts/uniform_codec.h"

namespace kvant::asymkv {
namespace {

constexpr int kGroups[] = {32, 64};

constexpr OptionInfo kOptions[] = {
    {"layers", "auto", "auto, 0..1000", "first layers with `high` bits; auto: half of them for keys, none for values"},
    {"high", "2", "2, 4", "bits of a code in the first layers"},
    {"low", "1", "1, 2", "bits of a code in the other layers"},
    {"group", "32", "32, 64", "tokens of a channel (keys) or channels of a token (values) that share a scale"},
    {"levels", "spread", "spread, extremes", "what 1-bit codes stand for: mean -+ a distance, or least and greatest"},
    {"spread", "1.25", "0.5..3 in steps of 0.05", "that distance, in mean distances of the group from its mean"},
};

/// How many layers are first ones on this side.
Result<int> FirstLayers(const OptionReader& reader, const BlockShape& shape) {
  if (reader.Get("layers") == "auto") return shape.side == Side::kKey ? shape.num_layers / 2 : 0;
  return reader.GetIntRange("layers", 0, 1000);
}

Result<int> Bits(const OptionReader& reader, const BlockShape& shape) {
  static constexpr int kHigh[] = {2, 4};
  static constexpr int kLow[] = {1, 2};
  const Result<int> layers = FirstLayers(reader, shape);
  const Result<int> high = reader.GetInt("high", kHigh);
  const Result<int> low = reader.GetInt("low", kLow);
  for (const Result<int>* option : {&layers, &high, &low}) {
    if (!option->ok()) return option->status();
  }
  return shape.layer < *layers ? *high : *low;
}

Result<GroupRange> Range(const OptionReader& reader, int bits) {
  static constexpr std::string_view kLevels[] = {"spread", "extremes"};
  const Result<int> levels = reader.GetChoice("levels", kLevels);
  if (!levels.ok()) return levels.status();
  const Result<double> spread = reader.GetNumber("spread", 0.5, 3.0, 0.05);
  if (!spread.ok()) return spread.status();
  if (bits > 1 || *levels == 1) return GroupRange{};
  return GroupRange{RangeRule::kSpread, static_cast<float>(*spread)};
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  const OptionReader reader(kInfo, options);
  const Result<int> bits = Bits(reader, shape);
  if (!bits.ok()) return bits.status();
  const Result<int> group = reader.GetInt("group", kGroups);
  if (!group.ok()) return group.status();
  const Result<GroupRange> range = Range(reader, *bits);
  if (!range.ok()) return range.status();
  const GroupAxis axis = shape.side == Side::kKey ? GroupAxis::kChannel : GroupAxis::kToken;
  if (!ValidGroup(axis, shape.dim, kGroups[0])) {
    return Status::NotSupported(
        StrFormat("codec asymkv: values need a head size that is a multiple of %d, not %d", kGroups[0], shape.dim));
  }
  if (!ValidGroup(axis, shape.dim, *group)) {
    return reader.Refuse("group", StrFormat("since it does not divide the head size %d", shape.dim));
  }
  return MakeUniformState(shape, axis, *bits, *group, *range);
}

// Errors are measured on 40 blocks each; their spread is a third of the interval. Squared, of 1-bit codes: 0.341 with
// spread=1, 1.96 with extremes.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 2.0, 0.595, 0.625},
    {"", Side::kValue, 2.0, 0.595, 0.625},
    {"layers=1", Side::kKey, 3.0, 0.370, 0.420},
    {"layers=1", Side::kValue, 3.0, 0.370, 0.420},
    {"spread=1", Side::kKey, 2.0, 0.570, 0.590},
    {"group=64,spread=1", Side::kValue, 1.5, 0.580, 0.600},
    {"levels=extremes", Side::kKey, 2.0, 1.34, 1.44},
    {"levels=extremes", Side::kValue, 2.0, 1.34, 1.44},
};

constexpr CodecPair kTypical[] = {
    {"layers=1000", "layers=0"},
    {"", ""},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "asymkv",
    .summary = "kivi with 2-bit codes in the first layers and 1-bit codes in the others",
    .paper = "Tao, Yu, Zhou, AsymKV, arXiv:2410.13212",
    .recent_tokens = kRecentTokens,
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .make = Make,
    .reference = kUniformReferenceVerbs,
    .simd = [] { return &UniformFastVerbs(); },
};

}  // namespace kvant::asymkv
