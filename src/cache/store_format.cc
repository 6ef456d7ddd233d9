#include "cache/store_format.h"

#include <algorithm>

#include "cache/kv_store.h"

namespace kvant {
namespace {

// A sink block is a whole number of these, so that kernels may read vectors of tokens.
constexpr int kSinkGranule = 16;

Status CheckRange(const char* what, int value, int min, int max) {
  if (value >= min && value <= max) return Status::Ok();
  return Status::InvalidArgument(StrFormat("%s is %d; accepted: %d..%d", what, value, min, max));
}

Codec ExactCodec(BlockShape shape, int tokens) {
  shape.tokens = tokens;
  return OpenPageCodec(shape);
}

}  // namespace

Result<StoreFormat> StoreFormat::Make(const KvStoreConfig& config) {
  const BlockShape& shape = config.codec.shape();
  KVANT_TRY(CheckRange("number of KV heads", config.kv_heads, 1, 1 << 16));
  KVANT_TRY(CheckRange("number of sequences", config.num_sequences, 1, 1 << 20));
  KVANT_TRY(CheckRange("sink", config.sink_tokens, 0, kTokensPerPage));
  KVANT_TRY(CheckRange("recent", config.recent_tokens, 0, 1 << 16));
  KVANT_TRY(CheckRange("tokens of a sealed block", shape.tokens, kTokensPerPage, kTokensPerPage));
  const CodecState& state = *config.codec.state;
  if (state.keys_before_rope && config.maybe_rope == nullptr) {
    return Status::InvalidArgument(
        StrFormat("codec %s keeps keys as they were before RoPE, and how this layer turns them is not known",
                  std::string(config.codec.info->name).c_str()));
  }
  if (state.keys_before_rope && config.maybe_rope->dim() != shape.dim) {
    return Status::InvalidArgument(
        StrFormat("RoPE is for a head of %d, the keys have %d", config.maybe_rope->dim(), shape.dim));
  }
  const int sink_block_tokens = (std::max(config.sink_tokens, 1) + kSinkGranule - 1) / kSinkGranule * kSinkGranule;
  return StoreFormat{.layer = config.layer,
                     .kv_heads = config.kv_heads,
                     .sink_tokens = config.sink_tokens,
                     .recent_tokens = config.recent_tokens,
                     .has_calibrated = config.maybe_bases != nullptr,
                     .sealed = config.codec,
                     .open = ExactCodec(shape, kTokensPerPage),
                     .sinks = ExactCodec(shape, sink_block_tokens),
                     .maybe_rope = state.keys_before_rope ? config.maybe_rope : nullptr};
}

std::string StoreFormat::Where() const {
  return StrFormat("layer %d %s", layer, sealed.shape().side == Side::kKey ? "K" : "V");
}

}  // namespace kvant
