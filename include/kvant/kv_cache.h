// A compressed KV cache for all layers of a model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kvant/calibration.h"
#include "kvant/scheme.h"
#include "kvant/shape.h"
#include "kvant/status.h"
#include "kvant/token_class.h"

namespace kvant {

class KvStore;
struct Footprint;

struct CacheConfig {
  Scheme scheme;
  std::vector<LayerShape> layers;
  std::vector<RopeShape> ropes = {};  ///< [layers], required by codecs that keep keys before RoPE; or empty
  int num_sequences = 1;
  size_t memory_limit_bytes = 0;  ///< 0: none
  /// Bases that codecs take from a file; those without an entry fit their own where they can. Null: no file.
  std::shared_ptr<const Calibration> maybe_calibration = nullptr;
  std::vector<int> layer_numbers = {};  ///< the model's number of each layer; empty: 0, 1, 2, ...
};

/// The stores of all layers, one for K and one for V each, over one page pool. Memory grows with the rows held.
/// Not thread-safe; reading (attention, Read) by a team is.
class KvCache {
 public:
  /// Errors: InvalidArgument or NotSupported, naming layer, codec and option; NotFound when a codec needs a calibration
  /// that has no entry for it, OutOfMemory when the calibrated bases exceed the limit.
  static Result<std::unique_ptr<KvCache>> Create(const CacheConfig& config);
  ~KvCache();

  const CacheConfig& config() const;
  int num_layers() const;
  KvStore& keys(int layer);
  KvStore& values(int layer);

  /// Appends `count` rows to one layer of a sequence: k [count, kv_heads * k_dim], v [count, kv_heads * v_dim].
  /// One thread. Seal is separate, so that the attention over these rows is exact. `positions` [count] are those that
  /// the model turned k by (CacheConfig::ropes); empty: the row numbers. `maybe_classes` [count] tells codecs that ask
  /// which tokens to keep better; null: all are ordinary.
  Status Append(int sequence, int layer, int64_t count, const float* k, const float* v,
                std::span<const int32_t> positions = {}, const TokenClass* maybe_classes = nullptr);
  /// Seals what is due in all layers of a sequence.
  Status Seal(int sequence);

  Status Fork(int from, int to);
  Status Truncate(int sequence, int64_t num_rows);
  void Clear(int sequence);

  Footprint footprint() const;
  size_t memory_bytes() const;  ///< taken from the system by the page pool
  double seal_seconds() const;  ///< time spent encoding so far, fitting bases included

 private:
  struct Impl;
  explicit KvCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvant
