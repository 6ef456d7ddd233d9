// kivi: keys as channel groups and values as token groups of 2-bit or 4-bit codes; the newest 128 tokens stay
// exact. See kivi.md for the bytes and for what differs from the paper.
// Paper: Liu, Yuan, Jin et al., "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache",
// arXiv:2402.02750.
//
// State, layout and verbs are those of parts/uniform_codec.h; this folder holds the options.
#pragma once

#include "codec/codec.h"

namespace kvant::kivi {

/// The residual length R of the paper.
constexpr int kRecentTokens = 128;

extern const CodecInfo kInfo;

}  // namespace kvant::kivi
