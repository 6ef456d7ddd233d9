// Keys: the scalar reference, and what both implementations share.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "codec/parts/hadamard.h"
#include "codec/vidkv/vidkv.h"

namespace kvant::vidkv {

// ---- channel classes

int ChannelMask::Count() const {
  int count = 0;
  for (const uint64_t word : words) count += std::popcount(word);
  return count;
}

ChannelMask WidestChannels(const float* ranges, int dim, int count) {
  int order[kMaxDim];
  std::iota(order, order + dim, 0);
  std::partial_sort(order, order + count, order + dim,
                    [&](int a, int b) { return ranges[a] != ranges[b] ? ranges[a] > ranges[b] : a < b; });
  ChannelMask mask;
  for (int i = 0; i < count; ++i) mask.Set(order[i]);
  return mask;
}

ChannelMask LoadMask(const KeyState& s, const std::byte* block) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(block + s.mask_byte_ofs);
  ChannelMask mask;
  for (int i = 0; i < s.shape.dim / 8; ++i) mask.words[i / 8] |= uint64_t{bytes[i]} << (i % 8 * 8);
  return mask;
}

void StoreMask(const KeyState& s, const ChannelMask& mask, std::byte* block) {
  for (int i = 0; i < s.shape.dim / 8; ++i) {
    block[s.mask_byte_ofs + static_cast<size_t>(i)] = static_cast<std::byte>(mask.words[i / 8] >> (i % 8 * 8));
  }
}

Status CheckMask(const KeyState& s, const std::byte* block) {
  const int count = LoadMask(s, block).Count();
  if (count == s.num_wide) return Status::Ok();
  return Status::Corruption(StrFormat("vidkv: %d channels are marked as wide, not %d", count, s.num_wide));
}

void ListClass(const KeyState& s, const ChannelMask& mask, ChannelClass wanted, int* channels) {
  const bool wide = wanted == ChannelClass::kWide;
  for (int c = 0; c < s.shape.dim; ++c) {
    if (mask[c] == wide) *channels++ = c;
  }
}

namespace {

constexpr ChannelClass kClasses[] = {ChannelClass::kWide, ChannelClass::kRest};

/// One class of the channels of rows [count, dim], transformed where it is -> [count, g.dim].
void GatherRows(const KeyState& s, const ChannelMask& mask, ChannelClass wanted, const float* rows, int count,
                float* out) {
  int channels[kMaxClassDim];
  ListClass(s, mask, wanted, channels);
  const int dim = s.groups(wanted).dim;
  for (int r = 0; r < count; ++r, out += dim) {
    for (int i = 0; i < dim; ++i) out[i] = rows[r * s.shape.dim + channels[i]];
    if (s.transforms(wanted)) HadamardRow(dim, out);
  }
}

ChannelMask ChooseWide(const KeyState& s, const float* rows) {
  const int dim = s.shape.dim;
  float ranges[kMaxDim];
  for (int c = 0; c < dim; ++c) {
    float min = rows[c], max = rows[c];
    for (int t = 1; t < kTokensPerPage; ++t) {
      min = std::min(min, rows[t * dim + c]);
      max = std::max(max, rows[t * dim + c]);
    }
    ranges[c] = max - min;
  }
  return WidestChannels(ranges, dim, s.num_wide);
}

}  // namespace

// ---- verbs

namespace keys {

Status Encode(const CodecState& state, const BlockContext&, const float* rows, std::byte* block) {
  const KeyState& s = AsKeys(state);
  std::memset(block, 0, s.layout.block_bytes());
  const ChannelMask mask = ChooseWide(s, rows);
  StoreMask(s, mask, block);
  float part[kTokensPerPage * kMaxClassDim];
  for (const ChannelClass c : kClasses) {
    const UniformGroups& g = s.groups(c);
    GatherRows(s, mask, c, rows, kTokensPerPage, part);
    KVANT_TRY(ReferenceEncodeGroups(g, part, block));
  }
  return Status::Ok();
}

Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows) {
  const KeyState& s = AsKeys(state);
  KVANT_TRY(CheckMask(s, block));
  const ChannelMask mask = LoadMask(s, block);
  float part[kTokensPerPage * kMaxClassDim];
  for (const ChannelClass c : kClasses) {
    const UniformGroups& g = s.groups(c);
    KVANT_TRY(ReferenceDecodeGroups(g, block, part));
    int channels[kMaxClassDim];
    ListClass(s, mask, c, channels);
    for (int t = 0; t < kTokensPerPage; ++t) {
      if (s.transforms(c)) InverseHadamardRow(g.dim, part + t * g.dim);
      for (int i = 0; i < g.dim; ++i) rows[t * s.shape.dim + channels[i]] = part[t * g.dim + i];
    }
  }
  return Status::Ok();
}

void Score(const CodecState& state, const BlockContext&, const std::byte* block, const std::byte* prepared, int heads,
           float* scores) {
  const KeyState& s = AsKeys(state);
  const ChannelMask mask = LoadMask(s, block);
  float queries[kMaxHeads * kMaxClassDim];
  float part[kMaxHeads * kTokensPerPage];
  std::fill_n(scores, heads * kTokensPerPage, 0.0f);
  for (const ChannelClass c : kClasses) {
    const UniformGroups& g = s.groups(c);
    GatherRows(s, mask, c, reinterpret_cast<const float*>(prepared), heads, queries);
    ReferenceScoreGroups(g, block, queries, heads, part);
    for (int i = 0; i < heads * kTokensPerPage; ++i) scores[i] += part[i];
  }
}

}  // namespace keys

std::unique_ptr<CodecState> MakeKeyState(const BlockShape& shape, const KeyParams& params) {
  auto state = std::make_unique<KeyState>(shape);
  const int tiles = shape.dim / kTileChannels;
  constexpr int kMaxTiles = kMaxClassDim / kTileChannels;
  const int wide_tiles = std::clamp(static_cast<int>(std::lround(params.wide * tiles)), std::max(1, tiles - kMaxTiles),
                                    std::min(tiles - 1, kMaxTiles));
  state->num_wide = wide_tiles * kTileChannels;
  state->transform = params.transform;
  state->mask_byte_ofs = state->layout.Add("wide_channels", StreamKind::kOutliers, static_cast<size_t>(shape.dim / 8));
  const UniformSpec wide = {.axis = GroupAxis::kChannel, .dim = state->num_wide, .bits = 2, .group = params.group};
  state->wide = AddUniformGroups(Side::kKey, wide, state->layout, {"wide_codes", "wide_scales", "wide_mins"});
  const UniformSpec rest = {.axis = GroupAxis::kChannel,
                            .dim = shape.dim - state->num_wide,
                            .bits = 1,
                            .group = params.group,
                            .range = params.range};
  state->rest = AddUniformGroups(Side::kKey, rest, state->layout);
  state->prepared_head_bytes = AlignUp(sizeof(float) * static_cast<size_t>(shape.dim));
  return state;
}

}  // namespace kvant::vidkv
