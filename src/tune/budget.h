// How much memory a plan may take, as people say it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kvant/shape.h"
#include "kvant/status.h"

namespace kvant {

struct Budget {
  enum class Unit {
    kBitsPerValue,   ///< "3", "3bits": everything that the cache holds, per value of K and V
    kBytesPerToken,  ///< "512B": the same, per token
    kBytes,          ///< "64K in 2GiB": the whole cache, at its largest on the way to that context
  };
  Unit unit = Unit::kBitsPerValue;
  double amount = 0;
  int64_t context = 0;  ///< tokens; 0: the budget does not say

  /// Errors: InvalidArgument that shows the three forms. K, M and G are 1024, 1024^2 and 1024^3, as are KiB, MiB and GiB; KB,
  /// MB and GB are powers of 1000.
  static Result<Budget> Parse(std::string_view text);

  /// Bytes that a cache of these layers may hold with `tokens` tokens in it.
  double LimitBytes(const std::vector<LayerShape>& layers, int64_t tokens) const;
};

/// Values of K and V that one token has in all layers.
int64_t ValuesPerToken(const std::vector<LayerShape>& layers);

}  // namespace kvant
