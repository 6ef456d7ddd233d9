#include "eval/cache_cost.h"

#include <algorithm>
#include <utility>

#include "cache/kv_store.h"
#include "cache/store_format.h"
#include "kvant/kv_cache.h"

namespace kvant {

CacheCost::Store CacheCost::StoreCost(const StoreFormat& format) {
  const CodecState& state = *format.sealed.state;
  const size_t bases = format.has_basis() ? static_cast<size_t>(format.num_bases()) : 0;
  const int refit = format.fits_online() ? state.basis_refit_tokens : 0;
  return {.sealed_page_bytes = format.PageBytes(format.sealed),
          .open_page_bytes = format.PageBytes(format.open),
          .sink_bytes = format.sink_tokens ? format.PageBytes(format.sinks) : 0,
          .basis_bytes = bases * format.basis_stride_bytes(),
          .basis_min_tokens = state.basis_min_tokens,
          .basis_refit_tokens = refit ? std::max(refit, state.basis_min_tokens) : 0,
          .calibrated = format.has_calibrated,
          .recent_tokens = format.recent_tokens};
}

Result<CacheCost> CacheCost::Of(const Scheme& scheme, const std::vector<LayerShape>& layers,
                                std::shared_ptr<const Calibration> maybe_calibration) {
  auto cache = KvCache::Create({.scheme = scheme, .layers = layers, .maybe_calibration = std::move(maybe_calibration)});
  if (!cache.ok()) return cache.status();
  CacheCost cost;
  for (int layer = 0; layer < static_cast<int>(layers.size()); ++layer) {
    for (const KvStore* store : {&(*cache)->keys(layer), &(*cache)->values(layer)}) {
      const Result<StoreFormat> format = StoreFormat::Make(store->config());
      if (!format.ok()) return format.status();
      cost.stores_.push_back(StoreCost(*format));
    }
  }
  return cost;
}

// As Sequence::WantsBasis decides.
size_t CacheCost::NumBases(const Store& s, int64_t tokens) {
  if (tokens < s.basis_min_tokens) return 0;
  size_t bases = 1;
  int64_t fitted_at = s.basis_min_tokens;
  while (s.basis_refit_tokens != 0 && fitted_at + std::max(s.basis_refit_tokens, fitted_at) <= tokens) {
    fitted_at += std::max(s.basis_refit_tokens, fitted_at);
    ++bases;
  }
  return bases;
}

size_t CacheCost::Bytes(const Store& s, int64_t tokens) {
  const int64_t pages = (tokens + kTokensPerPage - 1) / kTokensPerPage;
  const int64_t sealed = std::max<int64_t>(0, tokens - s.recent_tokens) / kTokensPerPage;
  size_t bytes = static_cast<size_t>(sealed) * s.sealed_page_bytes +
                 static_cast<size_t>(pages - sealed) * s.open_page_bytes + (sealed > 0 ? s.sink_bytes : 0);
  if (s.calibrated) return bytes + s.basis_bytes;
  return sealed > 0 ? bytes + NumBases(s, tokens) * s.basis_bytes : bytes;
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
  for (const Store& store : stores_) bytes += static_cast<double>(store.sealed_page_bytes) / kTokensPerPage;
  return bytes;
}

}  // namespace kvant
