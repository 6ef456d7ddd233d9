// How many bytes a cache takes at a given length, without filling it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kvant/calibration.h"
#include "kvant/scheme.h"
#include "kvant/shape.h"
#include "kvant/status.h"

namespace kvant {

struct StoreFormat;

/// Costs of one sequence over all layers, K and V. The rows of a chunk that is being fed come on top for one
/// layer at a time, at 16 bits.
class CacheCost {
 public:
  /// Errors: InvalidArgument and NotSupported as KvCache::Create.
  static Result<CacheCost> Of(const Scheme& scheme, const std::vector<LayerShape>& layers,
                              std::shared_ptr<const Calibration> maybe_calibration = nullptr);

  /// Most bytes held on the way to `tokens` tokens, page by page.
  size_t PeakBytes(int64_t tokens) const;
  /// Most tokens within `memory_bytes`, at most `max_tokens`.
  int64_t LargestContext(size_t memory_bytes, int64_t max_tokens) const;
  /// What one more token costs in a long cache.
  double BytesPerToken() const;

  /// Bytes held at `tokens` tokens, in which exact rows of an open page may be; by one layer's K or V, and by all.
  /// REQUIRES: 0 <= layer < number of layers
  size_t StoreBytes(int layer, bool is_key, int64_t tokens) const;
  size_t BytesAt(int64_t tokens) const { return AllBytes(tokens); }
  /// BytesPerToken of one layer's K or V.
  double StoreBytesPerToken(int layer, bool is_key) const;

 private:
  /// One layer's K or V; all numbers over all its heads.
  struct Store {
    size_t sealed_page_bytes;
    size_t open_page_bytes;
    size_t sink_bytes;
    size_t basis_bytes;
    size_t page_position_bytes;  ///< beside sealed and open pages alike
    bool needs_basis;            ///< nothing is sealed before basis_min_tokens
    int64_t basis_min_tokens;
    int64_t basis_refit_tokens;  ///< 0: the first one stays
    bool calibrated;             ///< held from the start, instead
    int64_t recent_tokens;
  };
  static Store StoreCost(const StoreFormat& format);
  static size_t NumBases(const Store& store, int64_t tokens);
  static size_t Bytes(const Store& store, int64_t tokens);
  size_t AllBytes(int64_t tokens) const;
  static double PerToken(const Store& store);
  const Store& StoreOf(int layer, bool is_key) const { return stores_[2 * static_cast<size_t>(layer) + !is_key]; }
  std::vector<Store> stores_;  ///< K and V of layer 0, of layer 1, ...
};

}  // namespace kvant
