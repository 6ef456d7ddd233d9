#include "codec/kivi/kivi.h"

#include "codec/parts/uniform_codec.h"

namespace kvant::kivi {
namespace {

constexpr int kGroups[] = {32, 64};

constexpr OptionInfo kOptions[] = {
    {"bits", "2", "2, 4", "bits of a code"},
    {"group", "32", "32, 64", "tokens of a channel (keys) or channels of a token (values) that share a scale"},
};

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  static constexpr int kBits[] = {2, 4};
  const OptionReader reader(kInfo, options);
  const Result<int> bits = reader.GetInt("bits", kBits);
  if (!bits.ok()) return bits.status();
  const Result<int> group = reader.GetInt("group", kGroups);
  if (!group.ok()) return group.status();
  const GroupAxis axis = shape.side == Side::kKey ? GroupAxis::kChannel : GroupAxis::kToken;
  if (!ValidGroup(axis, shape.dim, kGroups[0])) {
    return Status::NotSupported(StrFormat(
        "codec kivi: values need a head size that is a multiple of %d, not %d; int takes any", kGroups[0], shape.dim));
  }
  if (!ValidGroup(axis, shape.dim, *group)) {
    return reader.Refuse("group", StrFormat("since it does not divide the head size %d", shape.dim));
  }
  return MakeUniformState(shape, axis, *bits, *group);
}

// Errors are measured on 40 blocks each; their spread is a third of the interval. 2 bits, group 32: squared,
// 0.152.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 3.0, 0.370, 0.420},
    {"", Side::kValue, 3.0, 0.370, 0.420},
    {"bits=2,group=64", Side::kKey, 2.5, 0.420, 0.480},
    {"bits=2,group=64", Side::kValue, 2.5, 0.420, 0.485},
    {"bits=4", Side::kKey, 5.0, 0.073, 0.084},
    {"bits=4", Side::kValue, 5.0, 0.073, 0.084},
};

constexpr CodecPair kTypical[] = {
    {"bits=4", "bits=4"},
    {"bits=2", "bits=2"},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "kivi",
    .summary = "keys per channel, values per token, 2 or 4-bit codes between the extremes of each group of 32",
    .paper = "Liu et al., KIVI, arXiv:2402.02750",
    .recent_tokens = kRecentTokens,
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .make = Make,
    .device_format = UniformDeviceFormat,
    .reference = kUniformReferenceVerbs,
    .simd = [] { return &UniformFastVerbs(); },
};

}  // namespace kvant::kivi
