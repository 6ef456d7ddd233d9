// Shapes of a model's cache.
#pragma once

#include <vector>

namespace kvant {

/// How a model turns keys by their position (rotary embedding, RoPE): pair j of the key of a token at position p by
/// the angle p * frequencies[j]. None: keys are not turned, or it is not known how. Channels from 2 * frequencies.size() on are not turned.
struct RopeShape {
  std::vector<double> frequencies;  ///< radians per position; scaling and frequency factors are in them
  bool interleaved = false;         ///< pair j is channels (2j, 2j + 1); else (j, j + frequencies.size())
  float attention_factor = 1.0f;    ///< turned channels are multiplied by it as well (YaRN)

  /// The usual one: base^(-2j / dim) for all `dim` channels.
  static RopeShape OfBase(double base, int dim, bool interleaved);
  bool operator==(const RopeShape&) const = default;
};

/// One attention layer. K and V may differ in size.
struct LayerShape {
  int kv_heads = 0;
  int k_dim = 0;  ///< values of one K row of one head: a multiple of 16, 64..256 in practice
  int v_dim = 0;
};

}  // namespace kvant
