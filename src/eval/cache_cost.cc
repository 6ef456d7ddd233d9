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
          .page_position_bytes = format.keeps_positions() ? format.positions_bytes() : 0,
          .needs_basis = format.needs_basis(),
          .basis_min_tokens = state.basis_min_tokens,
          .basis_refit_tokens = refit ? std::max(refit, state.basis_min_tokens) : 0,
          .calibrated = format.has_calibrated,
          .recent_tokens = format.recent_tokens};
}

Result<CacheCost> CacheCost::Of(const Scheme& scheme, const std::vector<LayerShape>& layers,
                                std::shared_ptr<const Calibration> maybe_calibration) {
  std::vector<RopeShape> ropes;  // any will do: they take no part in the cost
  for (const LayerShape& layer : layers) ropes.push_back(RopeShape::OfBase(10000, layer.k_dim, false));
  auto cache = KvCache::Create(
      {.scheme = scheme, .layers = layers, .ropes = ropes, .maybe_calibration = std::move(maybe_calibration)});
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
  const bool waits = s.needs_basis && tokens < s.basis_min_tokens;
  const int64_t sealed = waits ? 0 : std::max<int64_t>(0, tokens - s.recent_tokens) / kTokensPerPage;
  size_t bytes = static_cast<size_t>(pages) * s.page_position_bytes +
                 static_cast<size_t>(sealed) * s.sealed_page_bytes +
                 static_cast<size_t>(pages - sealed) * s.open_page_bytes + (sealed > 0 ? s.sink_bytes : 0);
  if (s.calibrated) return bytes + s.basis_bytes;
  return sealed > 0 ? bytes + NumBases(s, tokens) * s.basis_bytes : bytes;
}

size_t CacheCost::AllBytes(int64_t tokens) const {
  size_t total = 0;
  for (const Store& store : stores_) total += Bytes(store, tokens);
  return total;
}

size_t CacheCost::PeakBytes(int64_t tokens) const {
  // Sealing makes the cache smaller, so the peak may be the last token before the latest seal, or before the first one
  // where that waited for a basis.
  size_t peak = AllBytes(tokens);
  for (const Store& store : stores_) {
    const int64_t sealed = std::max<int64_t>(0, tokens - store.recent_tokens) / kTokensPerPage;
    if (sealed > 0) peak = std::max(peak, AllBytes(sealed * kTokensPerPage + store.recent_tokens - 1));
    if (store.needs_basis) peak = std::max(peak, AllBytes(std::min(tokens, store.basis_min_tokens - 1)));
  }
  return peak;
}

int64_t CacheCost::LargestContext(size_t memory_bytes, int64_t max_tokens) const {
  int64_t fits = 0, too_many = max_tokens + 1;
  while (too_many - fits > 1) {
    const int64_t middle = fits + (too_many - fits) / 2;
    (PeakBytes(middle) <= memory_bytes ? fits : too_many) = middle;
  }
  return fits;
}

double CacheCost::PerToken(const Store& s) {
  return static_cast<double>(s.sealed_page_bytes + s.page_position_bytes) / kTokensPerPage;
}

double CacheCost::BytesPerToken() const {
  double bytes = 0;
  for (const Store& store : stores_) bytes += PerToken(store);
  return bytes;
}

size_t CacheCost::StoreBytes(int layer, bool is_key, int64_t tokens) const {
  return Bytes(StoreOf(layer, is_key), tokens);
}

double CacheCost::StoreBytesPerToken(int layer, bool is_key) const { return PerToken(StoreOf(layer, is_key)); }

}  // namespace kvant
