// What a calibration sees of a model at work: rows of K, V and queries as they are computed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvant {

enum class RowKind : uint8_t {
  kKey,            ///< as the cache gets them: after RoPE
  kKeyBeforeRope,  ///< the same keys before RoPE; in layers without RoPE equal to kKey
  kValue,
  kQuery,   ///< after RoPE and times the softmax scale, all query heads; after the keys of their tokens
  kOutput,  ///< rows of the attention's output projection: what each of its inputs, value by value, contributes
};

/// Gets rows from a runner, one thread at a time.
class RowWatcher {
 public:
  virtual ~RowWatcher() = default;
  virtual bool Wants(RowKind kind) const = 0;
  /// `count` rows [count, width], all heads side by side, with a stride in floats; of consecutive tokens and in their
  /// order. A batch may come in several parts. `layer` is the model's number of the layer. Valid during the call.
  virtual void Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) = 0;
};

}  // namespace kvant
