// Options -> State: which gauge, codebook, widths and bytes a block has.
#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "codec/decoquant/decoquant.h"
#include "codec/parts/eigen_basis.h"
#include "codec/parts/strip.h"
#include "codec/parts/take_option.h"
#include "codec/parts/trellis.h"

namespace kvant::decoquant {
namespace {

enum class Code { kAuto, kLloydMax, kUniform, kAbsMax, kTrellis };
enum class Mean { kAuto, kOn, kOff };
enum class Scale { kUnbiased, kLeastSquares };
enum class Metric { kRows, kModel };

struct Options {
  double bits = 0.0;
  Gauge gauge = Gauge::kHadamard;
  Code code = Code::kAuto;
  Mean mean = Mean::kAuto;
  Scale scale = Scale::kUnbiased;
  Metric metric = Metric::kRows;
  int fit = 0;
  int refit = 0;
};

Status Read(const OptionReader& reader, Options* options) {
  static constexpr std::string_view kGauges[] = {"hadamard", "sqrt", "bal", "klt"};
  static constexpr std::string_view kCodes[] = {"auto", "lm", "uniform", "absmax", "trellis"};
  static constexpr std::string_view kMeans[] = {"auto", "on", "off"};
  static constexpr std::string_view kMetrics[] = {"rows", "model"};
  static constexpr std::string_view kScales[] = {"unbiased", "ls"};
  KVANT_TRY(TakeOption(reader.GetNumber("bits", 0.5, 8.0, 0.125), &options->bits));
  KVANT_TRY(TakeOption(reader.GetChoice("gauge", kGauges), &options->gauge));
  KVANT_TRY(TakeOption(reader.GetChoice("code", kCodes), &options->code));
  KVANT_TRY(TakeOption(reader.GetChoice("mean", kMeans), &options->mean));
  KVANT_TRY(TakeOption(reader.GetChoice("metric", kMetrics), &options->metric));
  KVANT_TRY(TakeOption(reader.GetChoice("scale", kScales), &options->scale));
  KVANT_TRY(TakeOption(reader.GetIntRange("fit", kTokensPerPage, 1 << 20), &options->fit));
  return TakeOption(reader.GetIntRange("refit", 0, 1 << 20), &options->refit);
}

// One absmax scale serves all tiles, so they need one width, and at least a code beside zero.
Status CheckAbsMax(const OptionReader& reader, const Options& options) {
  if (options.gauge == Gauge::kKlt) return reader.Refuse("code", "with gauge=klt");
  for (const int bits : kCodeWidths) {
    if (bits >= 2 && options.bits == bits) return Status::Ok();
  }
  return reader.Refuse("bits", "with absmax codes, which take 2, 3, 4, 6 or 8");
}

void SetCodes(Code code, Scale scale, State* s) {
  s->rule = scale == Scale::kUnbiased ? ScaleRule::kUnbiased : ScaleRule::kLeastSquares;
  s->trellis = code == Code::kTrellis;
  switch (code) {
    case Code::kAbsMax:
      s->books = &SymmetricCodebooks();
      s->rule = ScaleRule::kAbsMax;
      break;
    case Code::kUniform:
      s->books = &UniformCodebooks();
      break;
    case Code::kTrellis:
      s->books = &TrellisCodebooks();
      break;
    default:
      s->books = &LloydMaxCodebooks();
  }
}

void SetWidths(double bits, State* s) {
  s->num_tiles = s->shape.dim / kTileChannels;
  s->total_bits = ReachableBits(s->num_tiles, static_cast<int>(std::floor(bits * s->num_tiles)));
  const std::vector<double> equal(static_cast<size_t>(s->num_tiles), 1.0);
  AllocateBits(equal, LloydMaxCodebooks(), s->total_bits, s->default_bits);
  std::sort(s->default_bits, s->default_bits + s->num_tiles, std::greater<>());
}

void SetLayout(State* s) {
  const auto dim = static_cast<size_t>(s->shape.dim);
  if (s->centred) s->means_ofs = s->layout.Add("means", StreamKind::kMeans, dim * sizeof(F16));
  s->scales_ofs = s->layout.Add("scales", StreamKind::kScales, kTokensPerPage * sizeof(F16));
  s->codes_ofs = s->layout.Add("codes", StreamKind::kCodes, TileBytes(1) * static_cast<size_t>(s->total_bits));
  s->prepared_head_bytes = 2 * dim * sizeof(float);
  s->acc_dim = s->shape.dim * (s->centred ? 2 : 1) + 16;
}

void SetBasis(const Options& options, State* s) {
  if (!s->fitted()) return;
  s->basis_bytes = LayoutOfBasis(*s).bytes;
  s->basis_min_tokens = options.fit;
  s->basis_refit_tokens = options.refit;
  s->basis_per_layer = options.gauge == Gauge::kSqrt;
  s->needs_calibration = s->weighted;
}

}  // namespace

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& given) {
  const OptionReader reader(kInfo, given);
  Options options;
  KVANT_TRY(Read(reader, &options));
  if (options.code == Code::kAuto) {
    options.code = options.gauge == Gauge::kSqrt ? Code::kAbsMax : Code::kLloydMax;
  }
  if (options.metric == Metric::kModel && options.gauge != Gauge::kKlt)
    return reader.Refuse("metric", "without gauge=klt");
  if (options.code == Code::kAbsMax) KVANT_TRY(CheckAbsMax(reader, options));
  if (shape.dim > (options.gauge == Gauge::kSqrt && options.code == Code::kAbsMax ? kMaxDim : kMaxStripDim)) {
    return Status::NotSupported(StrFormat("decoquant: head size %d is not supported", shape.dim));
  }
  auto s = std::make_unique<State>(shape);
  s->gauge = options.gauge;
  s->weighted = options.metric == Metric::kModel;
  SetCodes(options.code, options.scale, s.get());
  const bool mean_by_default = shape.side == Side::kKey && options.gauge != Gauge::kSqrt;
  s->centred = options.mean == Mean::kAuto ? mean_by_default : options.mean == Mean::kOn;
  SetWidths(options.bits, s.get());
  SetLayout(s.get());
  SetBasis(options, s.get());
  return std::unique_ptr<CodecState>(std::move(s));
}

Result<DeviceFormat> FormatForDevice(const CodecState& state) {
  const State& s = AsState(state);
  const int bits = s.default_bits[0];
  const bool equal = std::all_of(s.default_bits, s.default_bits + s.num_tiles, [&](int b) { return b == bits; });
  if (s.fitted() || !equal || bits < 2 || bits > (s.trellis ? 3 : 4)) {
    return Status::NotSupported(
        "decoquant on a device; accepted: gauge=hadamard at 2, 3 or 4 bits (code=trellis: 2 or 3)");
  }
  DeviceFormat format = LatentDeviceFormat({s.order(), s.books, s.default_bits, s.num_tiles, s.trellis}, s.rule);
  format.codes_byte_ofs = s.codes_ofs;
  format.scales = {ParamAxis::kToken, 1, s.scales_ofs};
  if (s.centred) format.shifts = {ParamAxis::kChannel, 1, s.means_ofs};
  format.hadamard = true;
  return format;
}

}  // namespace kvant::decoquant
