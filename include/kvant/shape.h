// Shapes of a model's cache.
#pragma once

namespace kvant {

/// One attention layer. K and V may differ in size.
struct LayerShape {
  int kv_heads = 0;
  int k_dim = 0;  ///< values of one K row of one head: a multiple of 16, 64..256 in practice
  int v_dim = 0;
};

}  // namespace kvant
