// Options and the row of the registry.
#include "codec/calibquant/calibquant.h"

#include "codec/parts/uniform_codec.h"

namespace kvant::calibquant {
namespace {

constexpr OptionInfo kOptions[] = {
    {"bits", "1", "1, 2, 4, 8", "bits of a code"},
    {"range", "auto", "auto, spread, quantile, shrunk, extremes",
     "where a channel's codes lie; auto: spread with 1 bit, else extremes"},
    {"amount", "auto", "auto, or a multiple of 0.01: spread 0.5..3, quantile 0.05..0.45, shrunk 0.05..1",
     "mean distances (1.25), share of values beyond each end (0.2), or factor on the extremes (as published)"},
    {"stats", "page", "page, segment", "what the range of a channel is taken from"},
    {"refit", "4096", "0..1048576", "stats=segment: tokens after which a new segment begins; 0: never"},
    {"gain", "1", "0.1..4 in steps of 0.01", "K: attention takes gain * score + shift for scores of coded keys"},
    {"shift", "0", "-16..16 in steps of 0.05", "K: see gain"},
};

/// A rule with what `amount` may be, and is if it is not given.
struct RuleInfo {
  RangeRule rule;
  double default_amount, min, max;
};

RuleInfo RuleOf(int choice, const BlockShape& shape, int bits) {
  static constexpr RuleInfo kRules[] = {{RangeRule::kSpread, 1.25, 0.5, 3.0},
                                        {RangeRule::kQuantile, 0.2, 0.05, 0.45},
                                        {RangeRule::kShrunk, 1.0, 0.05, 1.0},
                                        {RangeRule::kExtremes, 1.0, 1.0, 1.0}};
  if (choice == 0) return kRules[bits == 1 ? 0 : 3];
  RuleInfo info = kRules[choice - 1];
  if (info.rule == RangeRule::kShrunk && bits == 1) info.default_amount = shape.side == Side::kKey ? 0.5 : 0.3;
  return info;
}

Result<GroupRange> Range(const OptionReader& reader, const BlockShape& shape, int bits) {
  static constexpr std::string_view kRanges[] = {"auto", "spread", "quantile", "shrunk", "extremes"};
  const Result<int> choice = reader.GetChoice("range", kRanges);
  if (!choice.ok()) return choice.status();
  const RuleInfo info = RuleOf(*choice, shape, bits);
  if (reader.Get("amount") == "auto") return GroupRange{info.rule, static_cast<float>(info.default_amount)};
  const Result<double> amount = reader.GetNumber("amount", info.min, info.max, 0.01);
  if (!amount.ok()) return amount.status();
  return GroupRange{info.rule, static_cast<float>(*amount)};
}

Result<LogitMap> Map(const OptionReader& reader, Side side) {
  const Result<double> gain = reader.GetNumber("gain", 0.1, 4.0, 0.01);
  if (!gain.ok()) return gain.status();
  const Result<double> shift = reader.GetNumber("shift", -16.0, 16.0, 0.05);
  if (!shift.ok()) return shift.status();
  if (side == Side::kValue && *gain != 1.0) return reader.Refuse("gain", "for values");
  if (side == Side::kValue && *shift != 0.0) return reader.Refuse("shift", "for values");
  return LogitMap{static_cast<float>(*gain), static_cast<float>(*shift)};
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  static constexpr int kBits[] = {1, 2, 4, 8};
  static constexpr std::string_view kStats[] = {"page", "segment"};
  const OptionReader reader(kInfo, options);
  const Result<int> bits = reader.GetInt("bits", kBits);
  if (!bits.ok()) return bits.status();
  const Result<GroupRange> range = Range(reader, shape, *bits);
  if (!range.ok()) return range.status();
  const Result<int> stats = reader.GetChoice("stats", kStats);
  if (!stats.ok()) return stats.status();
  const Result<int> refit = reader.GetIntRange("refit", 0, 1 << 20);
  if (!refit.ok()) return refit.status();
  const Result<LogitMap> map = Map(reader, shape.side);
  if (!map.ok()) return map.status();
  Result<std::unique_ptr<CodecState>> state =
      *stats == 0 ? MakeUniformState(shape, GroupAxis::kChannel, *bits, kTokensPerPage, *range)
                  : MakeSegmentState(shape, {.bits = *bits, .range = *range, .refit_tokens = *refit});
  if (state.ok()) (*state)->logit_map = *map;
  return state;
}

// Errors are measured on 40 blocks each; their spread is a third of the interval.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 1.5, 0.605, 0.65},
    {"", Side::kValue, 1.5, 0.605, 0.65},
    {"range=spread,amount=1", Side::kValue, 1.5, 0.57, 0.62},
    {"range=quantile", Side::kKey, 1.5, 0.57, 0.625},
    {"range=shrunk", Side::kKey, 1.5, 0.665, 0.765},
    {"range=shrunk", Side::kValue, 1.5, 0.595, 0.63},
    {"bits=2", Side::kKey, 2.5, 0.415, 0.48},
    {"bits=4", Side::kValue, 4.5, 0.0835, 0.0965},
    {"stats=segment", Side::kKey, 1.0, 0.6, 0.67},
    {"stats=segment", Side::kValue, 1.0, 0.6, 0.67},
    {"stats=segment,bits=2", Side::kValue, 2.0, 0.57, 0.74},
    {"stats=segment,bits=4", Side::kKey, 4.0, 0.115, 0.15},
    {"stats=segment,bits=8", Side::kValue, 8.0, 0.0085, 0.0175},
    {"stats=segment,range=quantile", Side::kKey, 1.0, 0.58, 0.625},
};

constexpr CodecPair kTypical[] = {
    {"bits=4", "bits=4"},
    {"bits=2", "bits=2"},
    {"", ""},
    {"stats=segment", "stats=segment"},
};

}  // namespace

const CodecInfo kInfo = {
    .name = "calibquant",
    .summary = "1-bit codes per channel of a page or segment, between two levels, with a linear map of the scores",
    .paper = "Han, Chen, Zandieh et al., CalibQuant, arXiv:2502.14882",
    .recent_tokens = kRecentTokens,
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .make = Make,
    .fit_basis = FitBasis,
    .check_basis = CheckBasis,
    .reference = {Encode, Decode, PrepareQuery, Score, Accumulate, Finish},
    .simd = [] { return &SimdVerbs(); },
};

}  // namespace kvant::calibquant
