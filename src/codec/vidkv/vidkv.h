// vidkv: keys with 2 bits for the channels of widest range and 1 bit, after an orthogonal transform, for the others;
// values as ternary codes with 2 bits for salient tokens. See vidkv.md for the bytes and for what differs from the paper.
// Paper: Tao, Fu, Du, Chen et al., "Plug-and-Play 1.x-Bit KV Cache Quantization for Video Large Language Models",
// arXiv:2503.16257.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec/codec.h"
#include "codec/parts/uniform_groups.h"

namespace kvant::vidkv {

/// The residual length R of the paper.
constexpr int kRecentTokens = 128;

constexpr int kMaxDim = kMaxGroupDim;

// ---- keys

/// Most channels of one class: what keeps the verbs within the stack that codec.h allows.
constexpr int kMaxClassDim = 176;

enum class ChannelClass : uint8_t {
  kWide,  ///< the channels of widest range in the block
  kRest,
};

/// Streams of a key block.
///   wide_channels  [dim] bits, channel c in bit c % 8 of byte c / 8: a wide channel
///   wide_codes, wide_scales, wide_mins   the wide channels in order: uniform groups along tokens, 2 bits
///   codes, scales, mins                  the others in order, transformed: 1 bit; no mins with levels=sign
struct KeyState : CodecState {
  using CodecState::CodecState;

  size_t mask_byte_ofs = 0;
  int num_wide = 0;  ///< multiple of 16
  UniformGroups wide;
  UniformGroups rest;
  bool transform = true;

  const UniformGroups& groups(ChannelClass c) const { return c == ChannelClass::kWide ? wide : rest; }
  /// Whether the class goes through the Hadamard transform of its size.
  bool transforms(ChannelClass c) const { return transform && c == ChannelClass::kRest; }
};

inline const KeyState& AsKeys(const CodecState& state) { return static_cast<const KeyState&>(state); }

/// Which channels of a block are wide: bit c % 64 of word c / 64.
struct ChannelMask {
  uint64_t words[kMaxDim / 64] = {};

  bool operator[](int c) const { return (words[c / 64] >> (c % 64) & 1) != 0; }
  void Set(int c) { words[c / 64] |= uint64_t{1} << (c % 64); }
  int Count() const;
};

/// The `count` channels of widest range over rows [64, dim]; of equal ones the lower. `ranges` is [dim].
ChannelMask WidestChannels(const float* ranges, int dim, int count);
ChannelMask LoadMask(const KeyState& state, const std::byte* block);
void StoreMask(const KeyState& state, const ChannelMask& mask, std::byte* block);
/// Corruption unless the mask has as many channels as the state says.
Status CheckMask(const KeyState& state, const std::byte* block);

/// The channels of one class, in order.
void ListClass(const KeyState& state, const ChannelMask& mask, ChannelClass wanted, int* channels);

struct KeyParams {
  double wide = 0.5;  ///< share of the channels, rounded to whole tiles
  int group = 32;
  GroupRange range;
  bool transform = true;
};
std::unique_ptr<CodecState> MakeKeyState(const BlockShape& shape, const KeyParams& params);

// ---- values

constexpr int kMaxSalient = 24;

constexpr int kMaxQuads = kMaxDim / kTileChannels * kTokensPerPage / 4;

/// Trits and 2-bit codes are written by *quads*: 16 channels x 4 tokens, value i of which is channel i / 4 of token i % 4.
/// A stream of quads has `fields` of them in each byte: field f of byte k * 64 + i is value i of quad f * rows() + k.
struct QuadStream {
  size_t byte_ofs = 0;
  int num_quads = 0;
  int fields = 1;
  /// Where each quad lies in 8-bit tiles of the whole block (tile.h, kChannelLane): 64 bytes from here.
  uint16_t tile_byte_ofs[kMaxQuads] = {};

  int rows() const { return (num_quads + fields - 1) / fields; }
  /// Rows with a quad in every field; these come first.
  int full_rows() const { return std::max(0, num_quads - (fields - 1) * rows()); }
  size_t bytes() const { return static_cast<size_t>(rows()) * 64; }
};

/// Streams of a value block; the last three are absent without salient tokens.
///   trits     quads of the ordinary tokens, 5 to a byte, base 3; quad (tile, token / 4) is tile * tokens / 4 + token / 4
///   scales    [64 / group][dim] fp16
///   salient_tokens  64 bits, token t in bit t % 8 of byte t / 8
///   salient_codes   quads of the salient tokens, 4 to a byte, 2 bits
///   salient_gains   [salient] fp16
/// Tokens are stored in another order, ordinary ones first; groups are of stored tokens.
struct ValueState : CodecState {
  using CodecState::CodecState;

  int group = 64;
  int num_salient = 0;  ///< multiple of 4
  float gamma = 0.7f;
  float stretch = 1.0f;
  QuadStream trits;
  QuadStream salient;
  size_t scales_byte_ofs = 0;
  size_t mask_byte_ofs = 0;
  size_t gains_byte_ofs = 0;

  int num_ordinary() const { return kTokensPerPage - num_salient; }
  int num_scales() const { return kTokensPerPage / group * shape.dim; }
  const uint16_t* scales(const std::byte* b) const { return reinterpret_cast<const uint16_t*>(b + scales_byte_ofs); }
  uint16_t* scales(std::byte* b) const { return reinterpret_cast<uint16_t*>(b + scales_byte_ofs); }
  const uint16_t* gains(const std::byte* b) const { return reinterpret_cast<const uint16_t*>(b + gains_byte_ofs); }
  uint16_t* gains(std::byte* b) const { return reinterpret_cast<uint16_t*>(b + gains_byte_ofs); }
};

inline const ValueState& AsValues(const CodecState& state) { return static_cast<const ValueState&>(state); }

/// What codes stand for, in eighths of the scale, about kCenter: trits -8, 0, 8; 2-bit codes as the best four levels of a
/// normal distribution lie to the best three.
constexpr int kCenter = 16;
constexpr int kMostBits = 2;
constexpr int kLevelsPerScale = 8;
constexpr uint8_t kTritLevels[3] = {8, 16, 24};
constexpr uint8_t kSalientLevels[4] = {6, 13, 19, 26};
/// A 2-bit code changes here, in scales.
constexpr float kSalientThreshold = 6.5f / kLevelsPerScale;
/// Mean magnitude over scale of normal values with gamma = 0.7: what a gain of 1 stands for.
constexpr float kMeanOverScale = 0.674f;

/// Writes which tokens are salient, bit t: those of the class, then others, in both by falling size. sizes [64]: sums of
/// magnitudes.
uint64_t StoreSalient(const ValueState& state, const BlockContext& context, const float* sizes, std::byte* block);
/// Stored place -> token: ordinary tokens in order, then salient ones.
void TokenOrder(uint64_t salient, uint8_t* order);
/// 0 without salient tokens.
uint64_t LoadSalient(const ValueState& state, const std::byte* block);
/// Corruption unless the mask has as many tokens as the state says, and scales and gains are finite and not negative.
Status CheckValueBlock(const ValueState& state, const std::byte* block);
Status ScaleOverflow();

struct ValueParams {
  int group = 64;
  int salient = 12;
  double gamma = 0.7;
  double stretch = 1.0;
};
std::unique_ptr<CodecState> MakeValueState(const BlockShape& shape, const ValueParams& params);

// ---- verbs; a prepared query is the query and finish is a copy, as for uniform groups (uniform_codec.h)

namespace keys {
Status Encode(const CodecState& state, const BlockContext&, const float* rows, std::byte* block);
Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows);
void Score(const CodecState& state, const BlockContext&, const std::byte* block, const std::byte* prepared, int heads,
           float* scores);
}  // namespace keys

namespace values {
Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block);
Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows);
void Accumulate(const CodecState& state, const BlockContext&, const std::byte* block, const float* weights, int heads,
                float* acc);
}  // namespace values

const CodecVerbs& SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::vidkv
