// Uniform codes in groups: value = code * scale + min, with one fp16 scale and one fp16 min per group. Several codecs
// consist of them, others code one side or some channels so.
//
// A group is `group` neighbouring tokens of one channel (axis kChannel) or `group` neighbouring channels of
// one token (axis kToken). Streams of a block, in this order:
//
//   stream  bytes                    contents
//   codes   dim / 16 * 128 * bits    tiles (tile.h), kTokenLane for keys, kChannelLane for values
//   scales  2 * dim * 64 / group     fp16, finite, >= 0
//   mins    2 * dim * 64 / group     fp16, finite
//
// Scales and mins are [64 / group][dim] on axis kChannel and [dim / group][64] on axis kToken. There are no mins when the
// range of a group is symmetric (RangeRule::kSign): min is then -scale * (2^bits - 1) / 2.
//
// Everything here is plain C++ and is the definition; group_verbs.h holds the fast verbs, and
// uniform_codec.h a whole codec.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/float16.h"
#include "codec/codec.h"
#include "codec/parts/fixed_point.h"
#include "codec/parts/group_range.h"
#include "codec/parts/tile.h"
#include "codec/parts/tile_kernels.h"

namespace kvant {

enum class GroupAxis : uint8_t { kChannel, kToken };

/// Most channels of a head, and so the sizes of buffers on the stack.
constexpr int kMaxGroupDim = 256;
/// The smallest group; below it scales and mins would cost more than 1 bit per value.
constexpr int kMinGroup = 32;
/// Most byte planes of an integer query (QueryPlanes).
constexpr int kMaxQueryPlanes = 2;
inline constexpr TileLevels kHalfSteps = [] {
  TileLevels levels = {};
  for (int bits = 1; bits <= 4; ++bits) {
    for (int code = 0; code < 1 << bits; ++code) levels.by_bits[bits][code] = static_cast<uint8_t>(2 * code);
  }
  return levels;
}();
constexpr int kMaxGroups = kMaxGroupDim * kTokensPerPage / kMinGroup;
/// A head smaller than kMinGroup is one token group, so there may be at most this many either way.
static_assert(kMaxGroups >= kTokensPerPage);

/// What the groups of a block are.
struct UniformSpec {
  GroupAxis axis = GroupAxis::kChannel;
  int dim = 0;            ///< channels, multiple of 16
  int bits = 0;           ///< of a code: 1, 2, 3, 4 or 8
  int group = 0;          ///< values that share a scale
  GroupRange range = {};  ///< kQuantile on axis kChannel only, kSign with one bit only
};

/// Where the streams of a block are and how to read them. Value type, embedded in the state of a codec.
struct UniformGroups : UniformSpec {
  TileOrder order = TileOrder::kTokenLane;
  size_t codes_byte_ofs = 0;
  size_t scales_byte_ofs = 0;
  size_t mins_byte_ofs = 0;
  uint8_t tile_bits[kMaxGroupDim / kTileChannels] = {};  ///< `bits` for each tile

  bool has_mins() const { return range.rule != RangeRule::kSign; }
  SumOrder sum_order() const { return axis == GroupAxis::kChannel ? SumOrder::kSequential : SumOrder::kInSixteens; }
  // For the kernels codes of up to 4 bits count half steps, so that they lie evenly about an integer: what rounding the
  // query leaves then does not add up over the channels.
  const TileLevels* levels() const { return bits <= 4 ? &kHalfSteps : nullptr; }
  float level_step() const { return bits <= 4 ? 0.5f : 1.0f; }        ///< of a level, in scales
  int center() const { return bits <= 4 ? top() : 1 << (bits - 1); }  ///< the middle level
  int query_planes() const { return QueryPlanes(bits); }
  int num_tiles() const { return dim / kTileChannels; }
  int num_groups() const { return dim * kTokensPerPage / group; }
  /// The largest code.
  int top() const { return (1 << bits) - 1; }
  /// Index of the group of a value in `scales` and `mins`.
  int GroupIndex(int token, int channel) const {
    return axis == GroupAxis::kChannel ? token / group * dim + channel : channel / group * kTokensPerPage + token;
  }

  const std::byte* codes(const std::byte* block) const { return block + codes_byte_ofs; }
  std::byte* codes(std::byte* block) const { return block + codes_byte_ofs; }
  const uint16_t* scales(const std::byte* b) const { return reinterpret_cast<const uint16_t*>(b + scales_byte_ofs); }
  uint16_t* scales(std::byte* b) const { return reinterpret_cast<uint16_t*>(b + scales_byte_ofs); }
  const uint16_t* mins(const std::byte* b) const { return reinterpret_cast<const uint16_t*>(b + mins_byte_ofs); }
  uint16_t* mins(std::byte* b) const { return reinterpret_cast<uint16_t*>(b + mins_byte_ofs); }
};

/// Whether groups of this size cover a block without a remainder: kChannel needs `group` to divide 64, kToken
/// `dim`. Groups below kMinGroup are accepted only for a whole head.
bool ValidGroup(GroupAxis axis, int dim, int group);

/// Names of the streams, for blocks that hold more than one set of groups.
struct UniformStreamNames {
  std::string_view codes = "codes";
  std::string_view scales = "scales";
  std::string_view mins = "mins";
};

/// Appends the codes alone: for codecs that keep scales and mins elsewhere. As AddUniformGroups.
UniformGroups AddUniformCodes(Side side, const UniformSpec& spec, BlockLayout& layout, std::string_view name = "codes");

/// Appends the streams to `layout`. REQUIRES: ValidGroup(axis, dim, group), a width and range as UniformSpec says.
UniformGroups AddUniformGroups(Side side, const UniformSpec& spec, BlockLayout& layout,
                               const UniformStreamNames& names = {});

// ---- one group, one value

/// What a group stores: fp16 words, and the floats that the encoder uses (those words read back).
struct GroupParams {
  F16 scale;
  F16 min;
  float min_value = 0.0f;
  float inverse = 0.0f;  ///< 1 / scale; 0 for a constant group, whose codes are then 0
};

/// Parameters for values min..max. The scale is that of the stored min, so that its rounding moves no top
/// value.
GroupParams FitGroup(float min, float max, int bits);
/// Parameters for values -max..max; no min is stored.
GroupParams FitSymmetricGroup(float max, int bits);

/// round_half_even(clamp((value - min) / scale, 0, top))
uint8_t EncodeUniform(const GroupParams& params, int top, float value);

// ---- verbs of the reference

/// Writes the three streams. rows [64, dim]. InvalidArgument: a scale or min does not fit fp16.
Status ReferenceEncodeGroups(const UniformGroups& g, const float* rows, std::byte* block);
/// rows [64, dim]. Corruption: a scale or min that no encoder writes.
Status ReferenceDecodeGroups(const UniformGroups& g, const std::byte* block, float* rows);
/// queries [heads, dim] -> scores [heads, 64].
void ReferenceScoreGroups(const UniformGroups& g, const std::byte* block, const float* queries, int heads,
                          float* scores);
/// weights [heads, 64] -> adds to acc [heads, dim].
void ReferenceAccumulateGroups(const UniformGroups& g, const std::byte* block, const float* weights, int heads,
                               float* acc);

/// Scale and min of group `index` as floats.
struct ScaleAndMin {
  float scale;
  float min;
};
ScaleAndMin LoadGroup(const UniformGroups& g, const std::byte* block, int index);
/// The same for the groups first..first+count-1 (multiples of 16), by the kernels of this machine.
void LoadGroups(const UniformGroups& g, const std::byte* block, int first, int count, float* scale, float* min);

/// What decode checks: scales finite and not negative, mins finite.
bool ValidGroupParams(const UniformGroups& g, const std::byte* block);
/// The errors that go with it.
Status GroupParamsOverflow();
Status GroupParamsCorrupt();

}  // namespace kvant
