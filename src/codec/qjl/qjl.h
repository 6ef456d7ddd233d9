// qjl: keys as the signs of a Johnson-Lindenstrauss sketch and a norm, values as 2-bit token groups. See
// qjl.md. Paper: Zandieh, Daliri, Han, "QJL: 1-Bit Quantized JL Transform for KV Cache Quantization",
// arXiv:2406.03482.
//
// With directions s_i (rows of S, each of length sqrt(dim)), q . k is estimated by
//   sqrt(pi/2) / m * |k| * sum_i (s_i . q) sign(s_i . k),
// so a key is m bits and one norm, the query stays real, and the error falls as 1 / m.
// Values are uniform groups of channels (parts/uniform_groups.h); everything below is about keys.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec/codec.h"
#include "codec/parts/sketch.h"

namespace kvant::qjl {

/// Tokens that share their outlier channels: the key group of the method's code. A page holds two.
constexpr int kGroupTokens = 32;
constexpr int kGroups = kTokensPerPage / kGroupTokens;
constexpr int kMaxOutliers = 16;
constexpr int kMaxSketch = 1024;
constexpr int kMaxDim = 256;

/// Half of a key with signs and a norm of its own: the inlier channels, or the outlier channels.
struct KeyPart {
  int bits = 0;  ///< directions: m for inliers, m_o for outliers (the first m_o rows of the same S)
  size_t signs_byte_ofs = 0;
  size_t norms_byte_ofs = 0;
};

/// Streams of a key block; the last three are absent without outliers.
///   signs             [m / 16] 1-bit tiles, kTokenLane, bit = s_i . k_in > 0
///   norms             [64] fp16, |k_in|: the row without its outlier channels
///   outlier_signs     [m_o / 16] 1-bit tiles, bit = s_i . k_out > 0
///   outlier_norms     [64] fp16, |k_out|: the outlier channels of the row
///   outlier_channels  [2 groups][outliers] u8, ascending
struct KeyState : CodecState {
  using CodecState::CodecState;

  KeyPart parts[2];   ///< inliers, outliers
  int num_parts = 1;  ///< 1: no outliers
  int outliers = 0;   ///< channels per group of 32 tokens
  size_t channels_byte_ofs = 0;
  std::shared_ptr<const Sketch> matrix;  ///< S [max(m, m_o), dim]
};

inline const KeyState& AsKeys(const CodecState& state) { return static_cast<const KeyState&>(state); }

/// Channels of one part of a group, ascending.
struct ChannelList {
  uint16_t channels[kMaxDim];
  int size = 0;
};
/// What belongs to part 0 (inliers) and part 1 (outliers).
using ChannelSplit = std::array<ChannelList, 2>;

/// Puts the `outliers` channels of most energy over rows [kGroupTokens, dim] aside; of equal ones the lower.
ChannelSplit ChooseOutliers(const float* rows, int dim, int outliers);

/// The split that is stored in a block, and its outlier half alone. REQUIRES: encoded here or accepted by
/// decode.
ChannelSplit StoredSplit(const KeyState& state, const std::byte* block, int group);
ChannelList StoredOutliers(const KeyState& state, const std::byte* block, int group);

/// Writes outlier channels and norms of a block for rows [64, dim], everything but the signs, and the splits
/// it chose. InvalidArgument: a norm does not fit fp16.
Status EncodeScales(const KeyState& state, const float* rows, ChannelSplit* splits, std::byte* block);

/// Corruption unless norms are finite and not negative, and outlier channels ascend and exist.
Status CheckKeyBlock(const KeyState& state, const std::byte* block);

struct KeyParams {
  int sketch = 256;          ///< m, multiple of 16 up to kMaxSketch
  int outliers = 8;          ///< 0..kMaxOutliers, less than dim
  int outlier_sketch = 256;  ///< m_o, multiple of 16 up to kMaxSketch
};

/// A state around any matrix: tests of the estimator draw one per seed. REQUIRES: it has rows for both
/// sketches.
std::unique_ptr<KeyState> MakeKeyState(const BlockShape& shape, const KeyParams& params,
                                       std::shared_ptr<const Sketch> matrix);

const CodecVerbs& SimdVerbs();

extern const CodecInfo kInfo;

}  // namespace kvant::qjl
