#include "codec/int/int.h"

#include "codec/parts/uniform_codec.h"

namespace kvant::integer {
namespace {

enum AxisOption { kAuto, kToken, kChannel };

constexpr OptionInfo kOptions[] = {
    {"bits", "4", "2, 3, 4, 8", "bits of a code"},
    {"axis", "auto", "auto, token, channel",
     "what has a scale of its own: each token or each channel; auto: channel for keys, token for values"},
    {"group", "auto", "auto, 32, 64; with axis=token also 128, head",
     "values that share a scale; auto: 64 tokens, or 128 channels where they divide the head, else the head"},
};

GroupAxis Axis(int option, Side side) {
  if (option == kAuto) return side == Side::kKey ? GroupAxis::kChannel : GroupAxis::kToken;
  return option == kToken ? GroupAxis::kToken : GroupAxis::kChannel;
}

Result<int> ChannelAxisGroup(const OptionReader& reader) {
  static constexpr int kGroups[] = {32, 64};
  if (reader.Get("group") == "auto") return kTokensPerPage;
  if (reader.Get("group") == "128" || reader.Get("group") == "head") {
    return reader.Refuse("group", "with axis=channel, since a page has 64 tokens");
  }
  return reader.GetInt("group", kGroups);
}

Result<int> TokenAxisGroup(const OptionReader& reader, int dim) {
  static constexpr int kGroups[] = {32, 64, 128};
  if (reader.Get("group") == "head") return dim;
  if (reader.Get("group") == "auto") return dim % 128 == 0 ? 128 : dim;
  const Result<int> group = reader.GetInt("group", kGroups);
  if (group.ok() && !ValidGroup(GroupAxis::kToken, dim, *group)) {
    return reader.Refuse("group", StrFormat("since it does not divide the head size %d", dim));
  }
  return group;
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  static constexpr int kBits[] = {2, 3, 4, 8};
  static constexpr std::string_view kAxes[] = {"auto", "token", "channel"};
  const OptionReader reader(kInfo, options);
  const Result<int> bits = reader.GetInt("bits", kBits);
  if (!bits.ok()) return bits.status();
  const Result<int> axis_option = reader.GetChoice("axis", kAxes);
  if (!axis_option.ok()) return axis_option.status();
  const GroupAxis axis = Axis(*axis_option, shape.side);
  const Result<int> group = axis == GroupAxis::kChannel ? ChannelAxisGroup(reader) : TokenAxisGroup(reader, shape.dim);
  if (!group.ok()) return group.status();
  return MakeUniformState(shape, axis, *bits, *group);
}

// Errors are measured on 40 blocks each; their spread is a third of the interval.
constexpr Expectation kExpectations[] = {
    {"bits=8", Side::kKey, 8.5, 0.0049, 0.0057},
    {"bits=8", Side::kValue, 8.25, 0.0054, 0.0064},
    {"", Side::kKey, 4.5, 0.084, 0.096},
    {"", Side::kValue, 4.25, 0.093, 0.107},
    {"bits=3", Side::kKey, 3.5, 0.180, 0.205},
    {"bits=3", Side::kValue, 3.25, 0.200, 0.230},
    {"bits=2", Side::kKey, 2.5, 0.420, 0.480},
    {"bits=2", Side::kValue, 2.25, 0.470, 0.545},
    {"bits=4,axis=token,group=32", Side::kKey, 5.0, 0.073, 0.084},
    {"bits=4,axis=token,group=32", Side::kValue, 5.0, 0.073, 0.084},
    {"bits=8,axis=token,group=64", Side::kKey, 8.5, 0.0049, 0.0057},
    {"bits=4,axis=channel", Side::kValue, 4.5, 0.084, 0.096},
    {"bits=8,axis=channel,group=32", Side::kValue, 9.0, 0.0042, 0.0050},
};

constexpr CodecPair kTypical[] = {
    {"bits=8", "bits=8"},
    {"bits=4", "bits=4"},
    {"bits=3", "bits=3"},
    {"bits=2", "bits=2"},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "int",
    .summary = "uniform 2, 3, 4 or 8-bit codes, one scale and minimum per group of a token or a channel",
    .paper = "-",
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .make = Make,
    .device_format = UniformDeviceFormat,
    .reference = kUniformReferenceVerbs,
    .simd = [] { return &UniformFastVerbs(); },
};

}  // namespace kvant::integer
