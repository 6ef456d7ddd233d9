// Options -> State: which rotation, codes, classes and bytes a block has.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "codec/parts/take_option.h"
#include "codec/turboquant/turboquant.h"

namespace kvant::turboquant {
namespace {

/// Share of the channels in the class with the wider codes: 32 of 128, as in the paper.
constexpr int kOutlierShare = 4;

struct Options {
  double bits = 0.0;
  Rotation rotation = Rotation::kHadamard;
  ScaleRule scale = ScaleRule::kUnbiased;
  bool mean = false;
  bool calibrated = false;
  Residual residual = Residual::kNone;

  bool halves() const { return bits != std::floor(bits); }
};

Result<CodecOptions> WithPreset(const OptionReader& reader, Side side, const CodecOptions& given) {
  static constexpr std::string_view kPresets[] = {"none", "paper", "turboesm"};
  const Result<int> preset = reader.GetChoice("preset", kPresets);
  if (!preset.ok()) return preset.status();
  CodecOptions options = given;  // the first of a name counts
  const auto add = [&](std::string name, std::string value) {
    options.emplace_back(std::move(name), std::move(value));
  };
  if (*preset == 1) {
    add("rotate", "dense");
    add("scale", "norm");
  } else if (*preset == 2) {
    add("code", "calibrated");
    add("bits", side == Side::kKey ? "4" : "3");
    add("rotate", side == Side::kKey ? "svd" : "none");
    if (side == Side::kKey) add("residual", "sign");
  }
  return options;
}

Status Read(const OptionReader& reader, Options* options) {
  static constexpr std::string_view kRotations[] = {"hadamard", "dense", "svd", "none"};
  static constexpr std::string_view kScales[] = {"unbiased", "ls", "nc", "norm"};
  static constexpr ScaleRule kRules[] = {ScaleRule::kUnbiased, ScaleRule::kLeastSquares, ScaleRule::kSameNorm,
                                         ScaleRule::kNorm};
  static constexpr std::string_view kMeans[] = {"off", "on"};
  static constexpr std::string_view kCodes[] = {"lm", "calibrated"};
  static constexpr std::string_view kResiduals[] = {"none", "gaussian", "orthogonal", "sign"};
  int scale = 0;
  KVANT_TRY(TakeOption(reader.GetNumber("bits", 1.0, 4.0, 0.5), &options->bits));
  KVANT_TRY(TakeOption(reader.GetChoice("rotate", kRotations), &options->rotation));
  KVANT_TRY(TakeOption(reader.GetChoice("scale", kScales), &scale));
  KVANT_TRY(TakeOption(reader.GetChoice("mean", kMeans), &options->mean));
  KVANT_TRY(TakeOption(reader.GetChoice("code", kCodes), &options->calibrated));
  options->scale = kRules[scale];
  return TakeOption(reader.GetChoice("residual", kResiduals), &options->residual);
}

// What does not go together; an option without effect counts as that.
Status Check(const OptionReader& reader, const CodecOptions& given, const BlockShape& shape, const Options& o) {
  const bool scale_given = std::any_of(given.begin(), given.end(), [](const auto& o) { return o.first == "scale"; });
  const bool sign = o.residual == Residual::kSign;
  if (o.residual != Residual::kNone && shape.side == Side::kValue) return reader.Refuse("residual", "for values");
  if (sign && !o.calibrated) return reader.Refuse("residual", "with code=lm");
  if (o.calibrated && !sign && o.residual != Residual::kNone) return reader.Refuse("residual", "with code=calibrated");
  if (o.calibrated && scale_given) return reader.Refuse("scale", "with code=calibrated, which has none");
  if (o.halves() && (o.calibrated || o.rotation == Rotation::kSvd)) {
    return reader.Refuse("bits", "with a calibration, which knows one class of channels");
  }
  if (o.halves() && shape.dim < 2 * kTileChannels) {
    return reader.Refuse("bits", StrFormat("for a head of %d channels, which is one class", shape.dim));
  }
  if (o.bits == 1.5 && o.residual != Residual::kNone) return reader.Refuse("bits", "with a residual");
  if (o.bits == 1.0 && sign) return reader.Refuse("bits", "with residual=sign");
  return Status::Ok();
}

void AddClass(int first, int channels, int bits, State* s) {
  ChannelClass& part = s->classes[s->num_classes++];
  part.first = first;
  part.num_tiles = channels / kTileChannels;
  std::fill_n(part.bits, part.num_tiles, static_cast<uint8_t>(bits));
  if (s->rotation == Rotation::kDense) {
    part.dense = SharedSketch(channels, channels, SketchKind::kOrthogonal, kRotationSeed);
  }
}

void SetClasses(const Options& o, State* s) {
  const int code_bits = static_cast<int>(o.bits) - (s->sketched() ? 1 : 0);
  s->num_classes = 0;
  if (o.halves()) {
    const int outliers = std::max(s->shape.dim / kOutlierShare / kTileChannels, 1) * kTileChannels;
    AddClass(0, outliers, code_bits + 1, s);
    AddClass(outliers, s->shape.dim - outliers, code_bits, s);
  } else if (code_bits > 0) {
    AddClass(0, s->shape.dim, code_bits, s);
  }
}

void SetLayout(State* s) {
  static constexpr std::string_view kScaleNames[] = {"scales", "inlier_scales"};
  static constexpr std::string_view kCodeNames[] = {"codes", "inlier_codes"};
  const auto dim = static_cast<size_t>(s->shape.dim);
  if (s->centred) s->means_ofs = s->layout.Add("means", StreamKind::kMeans, dim * sizeof(F16));
  for (int i = 0; i < s->num_classes; ++i) {
    ChannelClass& part = s->classes[i];
    const size_t bytes = TileBytes(part.bits[0]) * static_cast<size_t>(part.num_tiles);
    if (!s->calibrated) {
      part.scales_ofs = s->layout.Add(kScaleNames[i], StreamKind::kScales, kTokensPerPage * sizeof(F16));
    }
    part.codes_ofs = s->layout.Add(kCodeNames[i], StreamKind::kCodes, bytes);
  }
  if (s->sketched()) {
    s->norms_ofs = s->layout.Add("residual_norms", StreamKind::kScales, kTokensPerPage * sizeof(F16));
    s->signs_ofs = s->layout.Add("residual_signs", StreamKind::kCodes, TileBytes(1) * dim / kTileChannels);
  }
  s->prepared_head_bytes = 3 * dim * sizeof(float);  // what the reference keeps; integers are less
  s->acc_dim = s->shape.dim * (s->centred ? 2 : 1) + 16;
}

void SetBasis(State* s) {
  s->basis_bytes = LayoutOfBasis(*s).bytes;
  s->needs_calibration = s->calibrated || s->rotation == Rotation::kSvd;
  // Outliers are chosen before the first page is sealed, and stay.
  if (s->num_classes == 2) s->basis_min_tokens = kTokensPerPage;
}

}  // namespace

Result<std::unique_ptr<CodecState>> MakeState(const BlockShape& shape, const CodecOptions& given,
                                              std::shared_ptr<const Sketch> maybe_sketch) {
  const Result<CodecOptions> all = WithPreset(OptionReader(kInfo, given), shape.side, given);
  if (!all.ok()) return all.status();
  const OptionReader reader(kInfo, *all);
  Options o;
  KVANT_TRY(Read(reader, &o));
  KVANT_TRY(Check(reader, given, shape, o));
  if (shape.tokens != kTokensPerPage) {
    return Status::NotSupported(StrFormat("turboquant: blocks of %d tokens", shape.tokens));
  }
  auto s = std::make_unique<State>(shape);
  s->rotation = o.rotation;
  s->residual = o.residual;
  s->rule = o.scale;
  s->centred = o.mean;
  s->calibrated = o.calibrated;
  s->table_bits = o.calibrated ? static_cast<int>(o.bits) : 0;
  if (o.residual == Residual::kGaussian || o.residual == Residual::kOrthogonal) {
    const SketchKind kind = o.residual == Residual::kGaussian ? SketchKind::kGaussian : SketchKind::kOrthogonal;
    s->sketch = maybe_sketch ? std::move(maybe_sketch) : SharedSketch(shape.dim, shape.dim, kind);
  }
  SetClasses(o, s.get());
  SetLayout(s.get());
  SetBasis(s.get());
  return std::unique_ptr<CodecState>(std::move(s));
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  return MakeState(shape, options, nullptr);
}

Result<DeviceFormat> FormatForDevice(const CodecState& state) {
  const State& s = AsState(state);
  const ChannelClass& all = s.classes[0];
  if (s.rotation != Rotation::kHadamard || s.calibrated || s.sketched() || s.num_classes != 1 || all.bits[0] < 2) {
    return Status::NotSupported(
        "turboquant on a device; accepted: rotate=hadamard with code=lm at 2, 3 or 4 bits, no residual");
  }
  DeviceFormat format = LatentDeviceFormat(SegmentView(s, nullptr).codes(all), s.rule);
  format.codes_byte_ofs = all.codes_ofs;
  format.scales = {ParamAxis::kToken, 1, all.scales_ofs};
  if (s.centred) format.shifts = {ParamAxis::kChannel, 1, s.means_ofs};
  format.hadamard = true;
  return format;
}

}  // namespace kvant::turboquant
