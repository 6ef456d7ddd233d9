#include "codec/qjl/qjl.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/float16.h"
#include "codec/parts/f16_words.h"
#include "codec/parts/side_options.h"
#include "codec/parts/tile.h"
#include "codec/parts/uniform_codec.h"

namespace kvant::qjl {
namespace {

const F16* Norms(const KeyPart& part, const std::byte* block) {
  return reinterpret_cast<const F16*>(block + part.norms_byte_ofs);
}

/// Offset of the tile of the 16 directions from `first`.
size_t SignsByteOfs(const KeyPart& part, int first) {
  return part.signs_byte_ofs + static_cast<size_t>(first / kTileChannels) * TileBytes(1);
}

const uint8_t* OutlierChannels(const KeyState& s, const std::byte* block, int group) {
  return reinterpret_cast<const uint8_t*>(block + s.channels_byte_ofs) + group * s.outliers;
}

/// a . b over the listed channels.
float ListDot(const ChannelList& list, const float* a, const float* b) {
  float sum = 0.0f;
  for (int i = 0; i < list.size; ++i) sum += a[list.channels[i]] * b[list.channels[i]];
  return sum;
}

ChannelSplit MakeSplit(int dim, const uint8_t* outliers, int num_outliers) {
  ChannelSplit split;
  for (int c = 0; c < dim; ++c) {
    ChannelList& list = split[std::find(outliers, outliers + num_outliers, c) != outliers + num_outliers];
    list.channels[list.size++] = static_cast<uint16_t>(c);
  }
  return split;
}

}  // namespace

// ---- parts of a key block that both implementations share

ChannelSplit ChooseOutliers(const float* rows, int dim, int outliers) {
  float energy[kMaxDim] = {};
  for (int t = 0; t < kGroupTokens; ++t) {
    for (int c = 0; c < dim; ++c) energy[c] += rows[t * dim + c] * rows[t * dim + c];
  }
  uint8_t order[kMaxDim];
  std::iota(order, order + dim, uint8_t{0});
  std::partial_sort(order, order + outliers, order + dim,
                    [&](int a, int b) { return energy[a] != energy[b] ? energy[a] > energy[b] : a < b; });
  return MakeSplit(dim, order, outliers);
}

ChannelSplit StoredSplit(const KeyState& state, const std::byte* block, int group) {
  return MakeSplit(state.shape.dim, OutlierChannels(state, block, group), state.outliers);
}

ChannelList StoredOutliers(const KeyState& state, const std::byte* block, int group) {
  ChannelList list;
  list.size = state.outliers;
  std::copy_n(OutlierChannels(state, block, group), state.outliers, list.channels);
  return list;
}

Status EncodeScales(const KeyState& s, const float* rows, ChannelSplit* splits, std::byte* block) {
  const int dim = s.shape.dim;
  for (int g = 0; g < kGroups; ++g) {
    splits[g] = ChooseOutliers(rows + g * kGroupTokens * dim, dim, s.outliers);
    auto* channels = reinterpret_cast<uint8_t*>(block + s.channels_byte_ofs) + g * s.outliers;
    std::copy_n(splits[g][1].channels, s.outliers, channels);
  }
  for (int p = 0; p < s.num_parts; ++p) {
    auto* norms = reinterpret_cast<F16*>(block + s.parts[p].norms_byte_ofs);
    for (int t = 0; t < kTokensPerPage; ++t) {
      const float* row = rows + t * dim;
      const float norm = std::sqrt(ListDot(splits[t / kGroupTokens][static_cast<size_t>(p)], row, row));
      if (!(norm <= kF16Max)) {
        return Status::InvalidArgument(
            StrFormat("qjl: the norm %g of a key does not fit fp16", static_cast<double>(norm)));
      }
      norms[t] = ToF16(norm);
    }
  }
  return Status::Ok();
}

Status CheckKeyBlock(const KeyState& s, const std::byte* block) {
  for (int p = 0; p < s.num_parts; ++p) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      if (!IsScaleWord(Norms(s.parts[p], block)[t].bits)) {
        return Status::Corruption(StrFormat("qjl: the norm of token %d is negative or not finite", t));
      }
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    const uint8_t* channels = OutlierChannels(s, block, g);
    for (int i = 0; i < s.outliers; ++i) {
      if (channels[i] < s.shape.dim && (i == 0 || channels[i] > channels[i - 1])) continue;
      return Status::Corruption(StrFormat("qjl: outlier channel %d of group %d is %d, out of order or of 0..%d", i, g,
                                          channels[i], s.shape.dim - 1));
    }
  }
  return Status::Ok();
}

namespace {

// ---- encode

/// Signs of all tokens for the 16 directions from `first`.
void EncodeSignTile(const KeyState& s, const float* rows, const ChannelSplit* splits, size_t part, int first,
                    std::byte* packed) {
  uint8_t codes[kTokensPerPage][kTileChannels];
  for (int t = 0; t < kTokensPerPage; ++t) {
    for (int i = 0; i < kTileChannels; ++i) {
      codes[t][i] = ListDot(splits[t / kGroupTokens][part], rows + t * s.shape.dim, s.matrix->row(first + i)) > 0.0f;
    }
  }
  PackTile(TileOrder::kTokenLane, 1, codes[0], kTileChannels, packed);
}

Status EncodeKeys(const KeyState& s, const float* rows, std::byte* block) {
  std::memset(block, 0, s.layout.block_bytes());
  ChannelSplit splits[kGroups];
  KVANT_TRY(EncodeScales(s, rows, splits, block));
  for (size_t p = 0; p < static_cast<size_t>(s.num_parts); ++p) {
    for (int first = 0; first < s.parts[p].bits; first += kTileChannels) {
      EncodeSignTile(s, rows, splits, p, first, block + SignsByteOfs(s.parts[p], first));
    }
  }
  return Status::Ok();
}

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  if (state.shape.side == Side::kKey) return EncodeKeys(AsKeys(state), rows, block);
  return uniform_reference::Encode(state, context, rows, block);
}

// ---- decode

/// sum_i sign_i s_i of token t over one part, times norm and scale, added on the part's channels.
void DecodePart(const KeyState& s, const KeyPart& part, const ChannelSplit* splits, size_t p, const std::byte* block,
                float* rows) {
  for (int first = 0; first < part.bits; first += kTileChannels) {
    uint8_t codes[kTokensPerPage][kTileChannels];
    UnpackTile(TileOrder::kTokenLane, 1, block + SignsByteOfs(part, first), codes[0], kTileChannels);
    for (int t = 0; t < kTokensPerPage; ++t) {
      const ChannelList& list = splits[t / kGroupTokens][p];
      const float length = EstimatorScale(part.bits) * ToFloat(Norms(part, block)[t]);
      for (int i = 0; i < kTileChannels; ++i) {
        const float step = codes[t][i] ? length : -length;
        for (int c = 0; c < list.size; ++c) {
          rows[t * s.shape.dim + list.channels[c]] += step * s.matrix->row(first + i)[list.channels[c]];
        }
      }
    }
  }
}

Status DecodeKeys(const KeyState& s, const std::byte* block, float* rows) {
  KVANT_TRY(CheckKeyBlock(s, block));
  const ChannelSplit splits[kGroups] = {StoredSplit(s, block, 0), StoredSplit(s, block, 1)};
  std::fill_n(rows, kTokensPerPage * s.shape.dim, 0.0f);
  for (size_t p = 0; p < static_cast<size_t>(s.num_parts); ++p) DecodePart(s, s.parts[p], splits, p, block, rows);
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) {
  if (state.shape.side == Side::kKey) return DecodeKeys(AsKeys(state), block, rows);
  return uniform_reference::Decode(state, context, block, rows);
}

// ---- prepare_query, score

void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared) {
  std::memcpy(prepared, queries, sizeof(float) * static_cast<size_t>(heads * state.shape.dim));
}

/// Adds sum_i (s_i . q) sign_i * norm * scale of one part to scores [64] of one head.
void ScorePart(const KeyState& s, const KeyPart& part, const ChannelSplit* splits, size_t p, const std::byte* block,
               const float* query, float* scores) {
  for (int first = 0; first < part.bits; first += kTileChannels) {
    uint8_t codes[kTokensPerPage][kTileChannels];
    UnpackTile(TileOrder::kTokenLane, 1, block + SignsByteOfs(part, first), codes[0], kTileChannels);
    for (int i = 0; i < kTileChannels; ++i) {
      float projection[kGroups];
      for (int g = 0; g < kGroups; ++g) projection[g] = ListDot(splits[g][p], query, s.matrix->row(first + i));
      for (int t = 0; t < kTokensPerPage; ++t) {
        const float length = EstimatorScale(part.bits) * ToFloat(Norms(part, block)[t]);
        scores[t] += (codes[t][i] ? length : -length) * projection[t / kGroupTokens];
      }
    }
  }
}

void Score(const CodecState& state, const BlockContext&, const std::byte* block, const std::byte* prepared, int heads,
           float* scores) {
  const KeyState& s = AsKeys(state);
  const ChannelSplit splits[kGroups] = {StoredSplit(s, block, 0), StoredSplit(s, block, 1)};
  std::fill_n(scores, heads * kTokensPerPage, 0.0f);
  for (int h = 0; h < heads; ++h) {
    const float* query = reinterpret_cast<const float*>(prepared) + h * s.shape.dim;
    for (size_t p = 0; p < static_cast<size_t>(s.num_parts); ++p) {
      ScorePart(s, s.parts[p], splits, p, block, query, scores + h * kTokensPerPage);
    }
  }
}

// ---- the row of the registry

constexpr OptionInfo kOptions[] = {
    {"sketch", "256", "multiples of 16 up to 1024", "K: bits of a key's sketch"},
    {"first_sketch", "512", "multiples of 16 up to 1024", "K: the same in the first layers"},
    {"first_layers", "15", "0..1000", "K: how many layers are first ones"},
    {"outliers", "8", "0..16, less than the head size", "K: channels per 32 tokens with a sketch of their own"},
    {"outlier_sketch", "256", "multiples of 16 up to 1024", "K: bits of the outlier channels' sketch"},
    {"first_outlier_sketch", "128", "multiples of 16 up to 1024", "K: the same in the first layers"},
    {"bits", "2", "2, 4", "V: bits of a code"},
    {"group", "32", "32, 64, 128, 256, a divisor of the head size", "V: channels that share scale and min"},
};
constexpr size_t kNumKeyOptions = 6;  ///< the rest is for values

Result<std::unique_ptr<CodecState>> MakeKeys(const BlockShape& shape, const OptionReader& reader) {
  const Result<int> first_layers = reader.GetIntRange("first_layers", 0, 1000);
  const Result<int> outliers = reader.GetIntRange("outliers", 0, kMaxOutliers);
  int sketches[4];
  constexpr std::string_view kSketches[] = {"sketch", "outlier_sketch", "first_sketch", "first_outlier_sketch"};
  for (size_t i = 0; i < std::size(kSketches); ++i) {
    const Result<double> bits = reader.GetNumber(kSketches[i], kTileChannels, kMaxSketch, kTileChannels);
    if (!bits.ok()) return bits.status();
    sketches[i] = static_cast<int>(*bits);
  }
  if (!first_layers.ok()) return first_layers.status();
  if (!outliers.ok()) return outliers.status();
  if (*outliers >= shape.dim) return reader.Refuse("outliers", StrFormat("for a head of %d channels", shape.dim));
  const int* const mine = sketches + (shape.layer < *first_layers ? 2 : 0);
  const KeyParams params = {.sketch = mine[0], .outliers = *outliers, .outlier_sketch = mine[1]};
  const int rows = params.outliers > 0 ? std::max(params.sketch, params.outlier_sketch) : params.sketch;
  return std::unique_ptr<CodecState>(MakeKeyState(shape, params, SharedSketch(shape.dim, rows)));
}

Result<std::unique_ptr<CodecState>> MakeValues(const BlockShape& shape, const OptionReader& reader) {
  static constexpr int kBits[] = {2, 4};
  static constexpr int kGroupSizes[] = {32, 64, 128, 256};
  const Result<int> bits = reader.GetInt("bits", kBits);
  const Result<int> group = reader.GetInt("group", kGroupSizes);
  if (!bits.ok()) return bits.status();
  if (!group.ok()) return group.status();
  if (shape.dim % kGroupSizes[0] != 0) {
    return Status::NotSupported(
        StrFormat("codec qjl: values need a head size that is a multiple of %d, not %d", kGroupSizes[0], shape.dim));
  }
  if (shape.dim % *group != 0) return reader.Refuse("group", StrFormat("for a head of %d channels", shape.dim));
  return MakeUniformState(shape, GroupAxis::kToken, *bits, *group);
}

Result<std::unique_ptr<CodecState>> Make(const BlockShape& shape, const CodecOptions& options) {
  const OptionReader reader(kInfo, options);
  if (shape.tokens != kTokensPerPage) return Status::NotSupported(StrFormat("qjl: blocks of %d tokens", shape.tokens));
  const auto all = std::span(kOptions);
  const auto others = shape.side == Side::kKey ? all.subspan(kNumKeyOptions) : all.first(kNumKeyOptions);
  KVANT_TRY(RefuseOtherSide(reader, options, shape.side, others));
  return shape.side == Side::kKey ? MakeKeys(shape, reader) : MakeValues(shape, reader);
}

// Device kernels read one count of outlier channels: they are the columns of a product.
Result<DeviceFormat> FormatForDevice(const CodecState& state) {
  constexpr int kOutliers = 8;
  if (state.shape.side == Side::kValue) return UniformDeviceFormat(state);
  const KeyState& s = AsKeys(state);
  if (s.outliers != 0 && s.outliers != kOutliers) {
    return Status::NotSupported(StrFormat("qjl: outliers=%d on a device; accepted: 0, %d", s.outliers, kOutliers));
  }
  for (int p = 0; p < s.num_parts; ++p) {
    const int bits = s.parts[p].bits;
    if (bits == 128 || bits == 256 || bits == 512) continue;
    return Status::NotSupported(StrFormat("qjl: a sketch of %d bits on a device; accepted: 128, 256, 512", bits));
  }
  DeviceFormat format = {.kind = CodeKind::kSketch,
                         .bits = 1,
                         .codes_byte_ofs = s.parts[0].signs_byte_ofs,
                         .scales = {ParamAxis::kToken, 1, s.parts[0].norms_byte_ofs},
                         .encodable = true};
  format.sketch = {.bits = s.parts[0].bits, .outliers = s.outliers};
  if (s.outliers > 0) {
    format.sketch.outlier_bits = s.parts[1].bits;
    format.sketch.outlier_codes_byte_ofs = s.parts[1].signs_byte_ofs;
    format.sketch.outlier_scales = {ParamAxis::kToken, 1, s.parts[1].norms_byte_ofs};
    format.sketch.channels_byte_ofs = s.channels_byte_ofs;
  }
  return format;
}

// Keys without outliers: sqrt((pi / 2 - 1) * 128 / m), 0.378 at m = 512 and 0.534 at m = 256. Layer 0 is a
// first one.
constexpr Expectation kExpectations[] = {
    {"", Side::kKey, 5.3125, 0.340, 0.363},
    {"outliers=0", Side::kKey, 4.125, 0.363, 0.389},
    {"first_layers=0", Side::kKey, 4.3125, 0.474, 0.508},
    {"first_layers=0,outliers=0", Side::kKey, 2.125, 0.518, 0.548},
    {"", Side::kValue, 3.0, 0.379, 0.408},
    {"bits=4", Side::kValue, 5.0, 0.0755, 0.0812},
    {"group=128", Side::kValue, 2.25, 0.478, 0.519},
};

constexpr CodecPair kTypical[] = {
    {"", "bits=4"},
    {"", ""},
};

}  // namespace

std::unique_ptr<KeyState> MakeKeyState(const BlockShape& shape, const KeyParams& params,
                                       std::shared_ptr<const Sketch> matrix) {
  auto state = std::make_unique<KeyState>(shape);
  const auto add_part = [&](KeyPart& part, int bits, StreamKind kind, std::string_view signs, std::string_view norms) {
    part.bits = bits;
    part.signs_byte_ofs = state->layout.Add(signs, kind, TileBytes(1) * static_cast<size_t>(bits / kTileChannels));
    part.norms_byte_ofs =
        state->layout.Add(norms, kind == StreamKind::kCodes ? StreamKind::kScales : kind, sizeof(F16) * kTokensPerPage);
  };
  add_part(state->parts[0], params.sketch, StreamKind::kCodes, "signs", "norms");
  if (params.outliers > 0) {
    add_part(state->parts[1], params.outlier_sketch, StreamKind::kOutliers, "outlier_signs", "outlier_norms");
    state->num_parts = 2;
    state->outliers = params.outliers;
    state->channels_byte_ofs =
        state->layout.Add("outlier_channels", StreamKind::kOutliers, static_cast<size_t>(kGroups * params.outliers));
  }
  // Room for what either implementation keeps: queries and sketches as floats, or sketches as integers with a
  // header.
  state->prepared_head_bytes = AlignUp(sizeof(float) * static_cast<size_t>(shape.dim + params.sketch)) + 2 * kAlignment;
  state->matrix = std::move(matrix);
  return state;
}

const CodecInfo kInfo = {
    .name = "qjl",
    .summary = "keys as signs of a Johnson-Lindenstrauss sketch with norms, values as 2-bit token groups",
    .paper = "Zandieh, Daliri, Han, QJL, arXiv:2406.03482",
    .recent_tokens = 128,
    .options = kOptions,
    .expectations = kExpectations,
    .typical = kTypical,
    .max_code_mismatch = 1e-4,
    .make = Make,
    .device_format = FormatForDevice,
    .reference = {Encode, Decode, PrepareQuery, Score, uniform_reference::Accumulate, uniform_reference::Finish},
    .simd = [] { return &SimdVerbs(); },
};

}  // namespace kvant::qjl
