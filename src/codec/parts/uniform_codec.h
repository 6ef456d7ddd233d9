// A codec that is nothing but uniform groups: state and verbs, to which a codec adds options.
#pragma once

#include <memory>

#include "codec/codec.h"
#include "codec/parts/uniform_groups.h"

namespace kvant {

struct UniformState : CodecState {
  using CodecState::CodecState;
  UniformGroups groups;
};

/// REQUIRES: as AddUniformGroups. NotSupported: blocks of other than 64 tokens.
Result<std::unique_ptr<CodecState>> MakeUniformState(const BlockShape& shape, GroupAxis axis, int bits, int group,
                                                     const GroupRange& range = {});

/// For CodecInfo::device_format. NotSupported: groups other than a key channel's page or a value token's 128 channels.
Result<DeviceFormat> UniformDeviceFormat(const CodecState& state);

namespace uniform_reference {

Status Encode(const CodecState& state, const BlockContext&, const float* rows, std::byte* block);
Status Decode(const CodecState& state, const BlockContext&, const std::byte* block, float* rows);
void PrepareQuery(const CodecState& state, const BlockContext&, const float* queries, int heads, std::byte* prepared);
void Score(const CodecState& state, const BlockContext&, const std::byte* block, const std::byte* prepared, int heads,
           float* scores);
void Accumulate(const CodecState& state, const BlockContext&, const std::byte* block, const float* weights, int heads,
                float* acc);
void Finish(const CodecState& state, const BlockContext&, const float* acc, int heads, float* out);

}  // namespace uniform_reference

/// The reference verbs of UniformState.
inline constexpr CodecVerbs kUniformReferenceVerbs = {
    .encode = uniform_reference::Encode,
    .decode = uniform_reference::Decode,
    .prepare_query = uniform_reference::PrepareQuery,
    .score = uniform_reference::Score,
    .accumulate = uniform_reference::Accumulate,
    .finish = uniform_reference::Finish,
};

/// The fast verbs of UniformState; they follow the SIMD target by themselves.
const CodecVerbs& UniformFastVerbs();

}  // namespace kvant
