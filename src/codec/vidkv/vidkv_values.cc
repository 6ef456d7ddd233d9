// Values: the scalar reference, and what both implementations share.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "codec/parts/f16_words.h"
#include "codec/vidkv/vidkv.h"

namespace kvant::vidkv {

// ---- token classes

uint64_t StoreSalient(const ValueState& s, const BlockContext& context, const float* sizes, std::byte* block) {
  if (s.num_salient == 0) return 0;
  const auto given = [&](int t) {
    return context.maybe_token_classes != nullptr && context.maybe_token_classes[t] == TokenClass::kSalient;
  };
  int order[kTokensPerPage];
  std::iota(order, order + kTokensPerPage, 0);
  std::partial_sort(order, order + s.num_salient, order + kTokensPerPage, [&](int a, int b) {
    if (given(a) != given(b)) return given(a);
    return sizes[a] != sizes[b] ? sizes[a] > sizes[b] : a < b;
  });
  uint64_t salient = 0;
  for (int i = 0; i < s.num_salient; ++i) salient |= uint64_t{1} << order[i];
  for (size_t i = 0; i < 8; ++i) block[s.mask_byte_ofs + i] = static_cast<std::byte>(salient >> (8 * i));
  return salient;
}

void TokenOrder(uint64_t salient, uint8_t* order) {
  for (const uint64_t mask : {~salient, salient}) {
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) *order++ = static_cast<uint8_t>(std::countr_zero(rest));
  }
}

uint64_t LoadSalient(const ValueState& s, const std::byte* block) {
  uint64_t salient = 0;
  if (s.num_salient == 0) return salient;
  for (size_t i = 0; i < 8; ++i) salient |= uint64_t{static_cast<uint8_t>(block[s.mask_byte_ofs + i])} << (8 * i);
  return salient;
}

Status CheckValueBlock(const ValueState& s, const std::byte* block) {
  const int count = std::popcount(LoadSalient(s, block));
  if (count != s.num_salient) {
    return Status::Corruption(StrFormat("vidkv: %d tokens are marked as salient, not %d", count, s.num_salient));
  }
  bool valid = true;
  for (int i = 0; i < s.num_scales(); ++i) valid &= IsScaleWord(s.scales(block)[i]);
  for (int i = 0; i < s.num_salient; ++i) valid &= IsScaleWord(s.gains(block)[i]);
  return valid ? Status::Ok() : Status::Corruption("vidkv: a scale or gain is negative or not finite");
}

namespace {

// ---- quads of the reference: one value at a time

/// Writes values [tokens, dim] of a stream's tokens. Fields of a byte that belong to no quad are 0.
template <typename Pack>
void StoreQuads(const QuadStream& stream, int tokens, int dim, const uint8_t* values, const Pack& pack,
                std::byte* block) {
  for (int i = 0; i < stream.rows() * 64; ++i) {
    uint8_t fields[5] = {};
    for (int f = 0; f < stream.fields; ++f) {
      const int quad = f * stream.rows() + i / 64;
      if (quad >= stream.num_quads) continue;
      const int token = quad % (tokens / 4) * 4 + i % 4;
      const int channel = quad / (tokens / 4) * kTileChannels + i % 64 / 4;
      fields[f] = values[token * dim + channel];
    }
    block[stream.byte_ofs + static_cast<size_t>(i)] = static_cast<std::byte>(pack(fields));
  }
}

/// ceil(value * 256 / 243) of five digits to the base 3, the first in the highest place: as a fraction of 256 the byte
/// gives up a digit with each product with 3.
int PackTrits(const uint8_t* trits) {
  int value = 0;
  for (int f = 0; f < 5; ++f) value = value * 3 + trits[f];
  return (value * 256 + 242) / 243;
}

int UnpackTrit(int byte, int field) {
  for (int f = 0; f < field; ++f) byte = byte * 3 % 256;
  return byte * 3 / 256;
}

int PackPairs(const uint8_t* codes) { return codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6; }

/// Where a value of a stream lies.
struct QuadPlace {
  size_t byte_ofs;
  int field;
};
QuadPlace PlaceOf(const QuadStream& stream, int tokens, int token, int channel) {
  const int quad = channel / kTileChannels * (tokens / 4) + token / 4;
  const int value = channel % kTileChannels * 4 + token % 4;
  return {stream.byte_ofs + static_cast<size_t>(quad % stream.rows() * 64 + value), quad / stream.rows()};
}

/// (level - kCenter) / kLevelsPerScale of a value.
float LevelOf(const ValueState& s, const std::byte* block, int stored_token, int channel) {
  int level;
  if (stored_token < s.num_ordinary()) {
    const QuadPlace place = PlaceOf(s.trits, s.num_ordinary(), stored_token, channel);
    level = kTritLevels[UnpackTrit(static_cast<int>(block[place.byte_ofs]), place.field)];
  } else {
    const QuadPlace place = PlaceOf(s.salient, s.num_salient, stored_token - s.num_ordinary(), channel);
    level = kSalientLevels[static_cast<int>(block[place.byte_ofs]) >> (2 * place.field) & 3];
  }
  return static_cast<float>(level - kCenter) / kLevelsPerScale;
}

/// Scale of the ordinary tokens first..last-1 (stored) in one channel.
float TernaryScale(const ValueState& s, const float* rows, const uint8_t* order, int first, int last, int channel,
                   float* threshold) {
  const auto magnitude = [&](int i) { return std::abs(rows[order[i] * s.shape.dim + channel]); };
  float sum = 0.0f;
  for (int i = first; i < last; ++i) sum += magnitude(i);
  *threshold = s.gamma * (sum / static_cast<float>(last - first));
  float kept = 0.0f, count = 0.0f;
  for (int i = first; i < last; ++i) {
    if (magnitude(i) <= *threshold) continue;
    kept += magnitude(i);
    count += 1.0f;
  }
  return count > 0.0f ? s.stretch * (kept / count) : 0.0f;
}

Status EncodeOrdinary(const ValueState& s, const float* rows, const uint8_t* order, std::byte* block) {
  const int dim = s.shape.dim;
  uint8_t trits[kTokensPerPage * kMaxDim];
  for (int first = 0; first < s.num_ordinary(); first += s.group) {
    const int last = std::min(first + s.group, s.num_ordinary());
    for (int c = 0; c < dim; ++c) {
      float threshold;
      const F16 scale = ToF16(TernaryScale(s, rows, order, first, last, c, &threshold));
      if (!IsScaleWord(scale.bits)) return ScaleOverflow();
      s.scales(block)[first / s.group * dim + c] = scale.bits;
      for (int i = first; i < last; ++i) {
        const float value = rows[order[i] * dim + c];
        trits[i * dim + c] = value > threshold ? 2 : value < -threshold ? 0 : 1;
      }
    }
  }
  StoreQuads(s.trits, s.num_ordinary(), dim, trits, PackTrits, block);
  return Status::Ok();
}

void EncodeSalient(const ValueState& s, const float* rows, const uint8_t* order, std::byte* block) {
  const int dim = s.shape.dim;
  uint8_t codes[kMaxSalient * kMaxDim];
  for (int i = 0; i < s.num_salient; ++i) {
    const int stored = s.num_ordinary() + i;
    float units[kMaxDim];  // the row in scales
    for (int c = 0; c < dim; ++c) {
      const float scale = ToFloat(F16{s.scales(block)[stored / s.group * dim + c]});
      units[c] = rows[order[stored] * dim + c] * (scale > 0.0f ? 1.0f / scale : 0.0f);
    }
    const float mean =
        SumInOrder(SumOrder::kInSixteens, dim, [&](int c) { return std::abs(units[c]); }) / static_cast<float>(dim);
    const F16 gain = ToF16(std::min(mean / kMeanOverScale, kF16Max));
    s.gains(block)[i] = gain.bits;
    const float threshold = ToFloat(gain) * kSalientThreshold;
    for (int c = 0; c < dim; ++c) {
      const bool outer = std::abs(units[c]) > threshold;
      codes[i * dim + c] = units[c] < 0.0f ? (outer ? 0 : 1) : (outer ? 3 : 2);
    }
  }
  StoreQuads(s.salient, s.num_salient, dim, codes, PackPairs, block);
}

void RowSizes(const float* rows, int dim, float* sizes) {
  for (int t = 0; t < kTokensPerPage; ++t) {
    sizes[t] = SumInOrder(SumOrder::kInSixteens, dim, [&](int c) { return std::abs(rows[t * dim + c]); });
  }
}

/// One stored row.
void DecodeRow(const ValueState& s, const std::byte* block, int stored_token, float* row) {
  const int salient = stored_token - s.num_ordinary();
  const float gain = salient >= 0 ? ToFloat(F16{s.gains(block)[salient]}) : 1.0f;
  const uint16_t* scales = s.scales(block) + stored_token / s.group * s.shape.dim;
  for (int c = 0; c < s.shape.dim; ++c) row[c] = LevelOf(s, block, stored_token, c) * ToFloat(F16{scales[c]}) * gain;
}

/// Places of the quads of `tokens` stored tokens from `first` on.
QuadStream MakeStream(int tiles, int first, int tokens, int fields) {
  QuadStream stream = {.num_quads = tiles * tokens / 4, .fields = fields};
  for (int quad = 0; quad < stream.num_quads; ++quad) {
    stream.tile_byte_ofs[quad] =
        static_cast<uint16_t>(quad / (tokens / 4) * kTileCodes + (first / 4 + quad % (tokens / 4)) * 64);
  }
  return stream;
}

}  // namespace

// ---- verbs

namespace values {

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) {
  const ValueState& s = AsValues(state);
  std::memset(block, 0, s.layout.block_bytes());
  float sizes[kTokensPerPage];
  RowSizes(rows, s.shape.dim, sizes);
  uint8_t order[kTokensPerPage];
  TokenOrder(StoreSalient(s, context, sizes, block), order);
  KVANT_TRY(EncodeOrdinary(s, rows, order, block));
  EncodeSalient(s, rows, order, block);
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows) {
  const ValueState& s = AsValues(state);
  KVANT_TRY(CheckValueBlock(s, block));
  uint8_t order[kTokensPerPage];
  TokenOrder(LoadSalient(s, block), order);
  for (int i = 0; i < kTokensPerPage; ++i) DecodeRow(s, block, i, rows + order[i] * s.shape.dim);
  return Status::Ok();
}

void Accumulate(const CodecState& state, const BlockContext&, const std::byte* block, const float* weights, int heads,
                float* acc) {
  const ValueState& s = AsValues(state);
  const int dim = s.shape.dim;
  uint8_t order[kTokensPerPage];
  TokenOrder(LoadSalient(s, block), order);
  for (int i = 0; i < kTokensPerPage; ++i) {
    float row[kMaxDim];
    DecodeRow(s, block, i, row);
    for (int h = 0; h < heads; ++h) {
      for (int c = 0; c < dim; ++c) acc[h * dim + c] += weights[h * kTokensPerPage + order[i]] * row[c];
    }
  }
}

}  // namespace values

Status ScaleOverflow() { return Status::InvalidArgument("vidkv: the scale of a channel does not fit fp16"); }

std::unique_ptr<CodecState> MakeValueState(const BlockShape& shape, const ValueParams& params) {
  auto state = std::make_unique<ValueState>(shape);
  state->group = params.group;
  state->num_salient = params.salient;
  state->gamma = static_cast<float>(params.gamma);
  state->stretch = static_cast<float>(params.stretch);
  const int tiles = shape.dim / kTileChannels;
  state->trits = MakeStream(tiles, 0, state->num_ordinary(), 5);
  state->salient = MakeStream(tiles, state->num_ordinary(), state->num_salient, 4);
  BlockLayout& layout = state->layout;
  state->trits.byte_ofs = layout.Add("trits", StreamKind::kCodes, state->trits.bytes());
  state->scales_byte_ofs =
      layout.Add("scales", StreamKind::kScales, sizeof(F16) * static_cast<size_t>(state->num_scales()));
  if (state->num_salient > 0) {
    state->mask_byte_ofs = layout.Add("salient_tokens", StreamKind::kOutliers, kTokensPerPage / 8);
    state->salient.byte_ofs = layout.Add("salient_codes", StreamKind::kOutliers, state->salient.bytes());
    state->gains_byte_ofs =
        layout.Add("salient_gains", StreamKind::kOutliers, sizeof(F16) * static_cast<size_t>(state->num_salient));
  }
  state->acc_dim = shape.dim;
  return state;
}

}  // namespace kvant::vidkv
