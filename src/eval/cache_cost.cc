#include "eval/cache_cost.h"

#include <algorithm>

#include "base/aligned_buffer.h"
#include "cache/kv_store.h"
#include "kvant/kv_cache.h"

namespace kvant {

Result<CacheCost> CacheCost::Of(const Scheme& scheme, const std::vector<LayerShape>& layers) {
  auto cache = KvCache::Create({.scheme = scheme, .layers = layers});
  if (!cache.ok()) return cache.status();
  CacheCost cost;
  const auto add = [&](const KvStoreConfig& c) {
    const CodecState& state = *c.codec.state;
    const size_t heads = static_cast<size_t>(c.kv_heads);
    const size_t row_bytes = static_cast<size_t>(state.shape.dim) * sizeof(F16);
    cost.stores_.push_back({.sealed_page_bytes = heads * c.codec.block_bytes(),
                            .open_page_bytes = heads * kTokensPerPage * row_bytes,
                            .sink_bytes = heads * AlignUp(static_cast<size_t>(c.sink_tokens) * row_bytes),
                            .basis_bytes = (state.basis_per_layer ? 1 : heads) * AlignUp(state.basis_bytes),
                            .basis_min_tokens = state.basis_min_tokens,
                            .basis_refit_tokens = state.basis_refit_tokens,
                            .recent_tokens = c.recent_tokens});
  };
  for (int layer = 0; layer < static_cast<int>(layers.size()); ++layer) {
    add((*cache)->keys(layer).config());
    add((*cache)->values(layer).config());
  }
  return cost;
}

size_t CacheCost::Bytes(const Store& s, int64_t tokens) {
  const int64_t pages = (tokens + kTokensPerPage - 1) / kTokensPerPage;
  const int64_t sealed = std::max<int64_t>(0, tokens - s.recent_tokens) / kTokensPerPage;
  size_t bytes = static_cast<size_t>(sealed) * s.sealed_page_bytes +
                 static_cast<size_t>(pages - sealed) * s.open_page_bytes + (sealed > 0 ? s.sink_bytes : 0);
  if (sealed > 0 && tokens >= s.basis_min_tokens) {
    const int64_t refits = s.basis_refit_tokens ? (tokens - s.basis_min_tokens) / s.basis_refit_tokens : 0;
    bytes += static_cast<size_t>(1 + refits) * s.basis_bytes;
  }
  return bytes;
}

size_t CacheCost::PeakBytes(int64_t tokens) const {
  size_t total = 0;
  for (const Store& store : stores_) {
    // Sealing a page makes the cache smaller, so the peak may be the last token before the latest seal.
    const int64_t sealed = std::max<int64_t>(0, tokens - store.recent_tokens) / kTokensPerPage;
    const int64_t before_seal = sealed * kTokensPerPage + store.recent_tokens - 1;
    total += std::max(Bytes(store, tokens), sealed > 0 ? Bytes(store, before_seal) : 0);
  }
  return total;
}

int64_t CacheCost::LargestContext(size_t memory_bytes, int64_t max_tokens) const {
  int64_t fits = 0, too_many = max_tokens + 1;
  while (too_many - fits > 1) {
    const int64_t middle = fits + (too_many - fits) / 2;
    (PeakBytes(middle) <= memory_bytes ? fits : too_many) = middle;
  }
  return fits;
}

double CacheCost::BytesPerToken() const {
  double bytes = 0;
  for (const Store& store : stores_) {
    bytes += static_cast<double>(store.sealed_page_bytes) / kTokensPerPage;
    if (store.basis_refit_tokens)
      bytes += static_cast<double>(store.basis_bytes) / static_cast<double>(store.basis_refit_tokens);
  }
  return bytes;
}

}  // namespace kvant
