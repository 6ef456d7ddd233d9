// What the bytes of a store's pages mean: its codecs and sizes. Fixed when the store is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "codec/codec.h"
#include "kvant/status.h"

namespace kvant {

struct KvStoreConfig;

struct StoreFormat {
  int layer = 0;
  int kv_heads = 0;
  int sink_tokens = 0;
  int recent_tokens = 0;
  bool has_calibrated = false;                       ///< one set of bases is there from the start and stays
  Codec sealed;                                      ///< blocks of sealed pages
  Codec open;                                        ///< blocks of open pages: exact, filled row by row
  Codec sinks;                                       ///< the same for the sink rows of a sealed page 0: fewer tokens
  std::shared_ptr<const Rope> maybe_rope = nullptr;  ///< only where positions are kept

  /// Errors: InvalidArgument naming the number that is out of range.
  static Result<StoreFormat> Make(const KvStoreConfig& config);

  int dim() const { return sealed.shape().dim; }
  size_t row_values() const { return static_cast<size_t>(kv_heads) * static_cast<size_t>(dim()); }
  size_t page_values() const { return static_cast<size_t>(kTokensPerPage) * static_cast<size_t>(dim()); }
  size_t PageBytes(const Codec& codec) const { return static_cast<size_t>(kv_heads) * codec.block_bytes(); }

  /// Positions are kept for every row: 4 bytes.
  bool keeps_positions() const { return sealed.state->keys_before_rope; }
  size_t positions_bytes() const { return sizeof(int32_t) * kTokensPerPage; }

  bool has_basis() const { return sealed.state->basis_bytes > 0; }
  /// Bases are fitted to the rows of each sequence.
  bool fits_online() const { return has_basis() && !has_calibrated && sealed.info->fit_basis != nullptr; }
  /// Pages are sealed only once there is a basis.
  bool needs_basis() const { return sealed.state->needs_basis && !has_calibrated; }
  int num_bases() const { return sealed.state->basis_per_layer ? 1 : kv_heads; }
  size_t basis_stride_bytes() const { return AlignUp(sealed.state->basis_bytes); }

  /// Bit t: row t of page 0 is a sink.
  uint64_t sink_mask() const { return sink_tokens == 0 ? 0 : ~uint64_t{0} >> (kTokensPerPage - sink_tokens); }
  /// "layer 3 K", for messages.
  std::string Where() const;
};

/// Block of one head in a page of `codec`.
inline std::byte* BlockOf(const Codec& codec, std::byte* page, int head) {
  return page + static_cast<size_t>(head) * codec.block_bytes();
}
inline const std::byte* BlockOf(const Codec& codec, const std::byte* page, int head) {
  return page + static_cast<size_t>(head) * codec.block_bytes();
}

}  // namespace kvant
