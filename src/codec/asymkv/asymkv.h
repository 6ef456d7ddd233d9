// asymkv: KIVI's groups with 2-bit codes in the first layers and 1-bit codes in the others, keys and values each with
// their own number of first layers. See asymkv.md for the bytes and for what differs from the paper.
// Paper: Tao, Yu, Zhou, "AsymKV: Enabling 1-Bit Quantization of KV Cache with Layer-Wise Asymmetric Quantization
// Configurations", arXiv:2410.13212.
//
// State, layout and verbs are those of parts/uniform_codec.h; this folder holds the options and the plan of layers.
#pragma once

#include "codec/codec.h"

namespace kvant::asymkv {

/// The residual length of the paper for tasks of ordinary length.
constexpr int kRecentTokens = 128;

extern const CodecInfo kInfo;

}  // namespace kvant::asymkv
