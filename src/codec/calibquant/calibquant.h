// calibquant: keys and values as 1-bit (or wider) codes per channel over a page or a longer segment, scales folded into
// the query and the output, scores mapped linearly. See calibquant.md for the bytes and for what differs from the paper.
// Paper: Han, Chen, Zandieh et al., "CalibQuant: 1-Bit KV Cache Quantization for Multimodal LLMs", arXiv:2502.14882
// (version 2; its first version, "From 16-Bit to 1-Bit", takes quantiles for ranges).
//
// With stats=page state, layout and verbs are those of parts/uniform_codec.h. What follows is stats=segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec/codec.h"
#include "codec/parts/uniform_groups.h"

namespace kvant::calibquant {

/// A block is its codes; scales and mins of the channels are the basis of the segment:
///   scales  [dim] fp16, finite, >= 0
///   mins    [dim] fp16, finite
struct SegmentState : CodecState {
  using CodecState::CodecState;
  UniformGroups codes;
};

inline bool IsSegment(const CodecState& state) { return state.basis_bytes > 0; }
inline const SegmentState& AsSegment(const CodecState& state) { return static_cast<const SegmentState&>(state); }

/// Scale and min of each channel as floats.
struct Channels {
  Channels(const SegmentState& state, const std::byte* basis);
  alignas(64) float scale[kMaxGroupDim];
  alignas(64) float min[kMaxGroupDim];
};

struct SegmentParams {
  int bits = 1;
  GroupRange range = {};
  int refit_tokens = 0;
};
/// NotSupported: blocks of other than 64 tokens.
Result<std::unique_ptr<CodecState>> MakeSegmentState(const BlockShape& shape, const SegmentParams& params);

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis);
Status CheckBasis(const CodecState& state, const std::byte* basis);

// ---- verbs: the reference of both kinds of statistics

Status Encode(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block);
Status Decode(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows);
void PrepareQuery(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                  std::byte* prepared);
void Score(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
           int heads, float* scores);
void Accumulate(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                int heads, float* acc);
void Finish(const CodecState& state, const BlockContext& context, const float* acc, int heads, float* out);

const CodecVerbs& SimdVerbs();

/// The method keeps all tokens but those of images exact; of a text the newest, as the other codecs of few bits do.
constexpr int kRecentTokens = 128;

extern const CodecInfo kInfo;

}  // namespace kvant::calibquant
