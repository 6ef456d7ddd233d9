// The cache that a runner is asked for: one of kvant's schemes, or a stock llama.cpp cache to compare with.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "ggml.h"
#include "kvant/scheme.h"
#include "kvant/shape.h"
#include "llama/runner.h"

namespace kvant {

struct CacheChoice {
  std::optional<Scheme> scheme;  ///< empty: a stock cache
  ggml_type key_type = GGML_TYPE_F16;
  ggml_type value_type = GGML_TYPE_F16;
};

/// "kv4", "k=int:4 v=int:2", "plan.json"; "f16", "llama:q8_0", "llama:q8_0/q4_0". Errors: InvalidArgument, with what is
/// accepted, and those of Runner::ReadScheme.
Result<CacheChoice> ParseCacheChoice(const std::string& model_path, std::string_view text);

/// Can the scheme's codecs encode these layers, with bases from the calibration where they need some? Errors: those of
/// MakeCodec and FindBases.
Status CheckScheme(const Scheme& scheme, const std::vector<LayerShape>& layers, const Calibration* maybe_calibration);

/// CacheUse::bases of a scheme that CheckScheme accepts.
std::string DescribeBases(const Scheme& scheme, const std::vector<LayerShape>& layers,
                          const Calibration* maybe_calibration);

/// What a stock cache of `rows` rows takes.
size_t StockBytes(const CacheChoice& choice, const std::vector<LayerShape>& layers, int64_t rows);
/// A stock cache with `rows` rows in use of `allocated` ones.
CacheUse StockUse(const CacheChoice& choice, const std::vector<LayerShape>& layers, int64_t rows, int64_t allocated);

}  // namespace kvant
