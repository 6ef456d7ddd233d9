#include "kvant/kv_cache.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "cache/kv_store.h"
#include "cache/page_pool.h"
#include "codec/calibrated.h"

namespace kvant {
namespace {

int NumberOf(const CacheConfig& config, int layer) {
  return config.layer_numbers.empty() ? layer : config.layer_numbers[static_cast<size_t>(layer)];
}

/// The layers' RoPE, one object for those that turn alike.
class Ropes {
 public:
  Result<std::shared_ptr<const Rope>> Get(const RopeShape& shape, int dim) {
    for (const auto& rope : ropes_) {
      if (rope->dim() == dim && rope->shape() == shape) return rope;
    }
    auto made = Rope::Make(shape, dim);
    if (made.ok()) ropes_.push_back(*made);
    return made;
  }

 private:
  std::vector<std::shared_ptr<const Rope>> ropes_;
};

Result<std::unique_ptr<KvStore>> MakeStore(const CacheConfig& config, int layer, Side side, Ropes* ropes,
                                           PagePool* pool) {
  const LayerShape& layer_shape = config.layers[static_cast<size_t>(layer)];
  const int number = NumberOf(config, layer);
  const bool is_key = side == Side::kKey;
  const CodecChoice& choice = config.scheme.Choice(number, is_key);
  const BlockShape shape = {.side = side,
                            .dim = is_key ? layer_shape.k_dim : layer_shape.v_dim,
                            .layer = number,
                            .num_layers = NumberOf(config, static_cast<int>(config.layers.size()) - 1) + 1};
  Result<Codec> codec = MakeCodec(choice.name, choice.options, shape);
  if (!codec.ok()) return codec.status();
  Result<SharedBases> bases =
      FindBases(*codec, choice.options, config.maybe_calibration.get(), number, layer_shape.kv_heads);
  if (!bases.ok()) return bases.status();
  std::shared_ptr<const Rope> rope;
  if (const size_t index = static_cast<size_t>(layer);
      codec->state->keys_before_rope && !config.ropes.empty() && !config.ropes[index].frequencies.empty()) {
    auto made = ropes->Get(config.ropes[index], shape.dim);
    if (!made.ok()) return made.status();
    rope = *made;
  }
  return KvStore::Create({.layer = number,
                          .kv_heads = layer_shape.kv_heads,
                          .num_sequences = config.num_sequences,
                          .codec = std::move(*codec),
                          .maybe_bases = std::move(*bases),
                          .sink_tokens = config.scheme.sink_tokens,
                          .recent_tokens = config.scheme.recent_tokens,
                          .maybe_rope = std::move(rope)},
                         pool);
}

}  // namespace

struct KvCache::Impl {
  explicit Impl(const CacheConfig& c) : config(c), pool(c.memory_limit_bytes) {}

  Status AddStore(int layer, Side side) {
    Result<std::unique_ptr<KvStore>> store = MakeStore(config, layer, side, &ropes, &pool);
    if (!store.ok()) {
      return {store.status().code(), StrFormat("layer %d %s: %s", NumberOf(config, layer),
                                               side == Side::kKey ? "K" : "V", store.status().message().c_str())};
    }
    (side == Side::kKey ? keys : values).push_back(std::move(*store));
    return Status::Ok();
  }
  auto AllStores(auto&& function) {
    for (size_t layer = 0; layer < keys.size(); ++layer) {
      function(*keys[layer]);
      function(*values[layer]);
    }
  }

  const CacheConfig config;
  PagePool pool;  // outlives the stores
  Ropes ropes;
  std::vector<std::unique_ptr<KvStore>> keys;
  std::vector<std::unique_ptr<KvStore>> values;
};

KvCache::KvCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvCache::~KvCache() = default;

Result<std::unique_ptr<KvCache>> KvCache::Create(const CacheConfig& config) {
  if (config.layers.empty()) return Status::InvalidArgument("a cache needs at least one layer");
  if (!config.layer_numbers.empty() && config.layer_numbers.size() != config.layers.size()) {
    return Status::InvalidArgument(
        StrFormat("%zu layer numbers for %zu layers", config.layer_numbers.size(), config.layers.size()));
  }
  // With numbers of their own the layers may be a part of the model's.
  if (config.layer_numbers.empty()) KVANT_TRY(config.scheme.CheckLayers(static_cast<int>(config.layers.size())));
  if (!config.ropes.empty() && config.ropes.size() != config.layers.size()) {
    return Status::InvalidArgument(
        StrFormat("%zu RoPE shapes for %zu layers", config.ropes.size(), config.layers.size()));
  }
  auto impl = std::make_unique<Impl>(config);
  for (int layer = 0; layer < static_cast<int>(config.layers.size()); ++layer) {
    KVANT_TRY(impl->AddStore(layer, Side::kKey));
    KVANT_TRY(impl->AddStore(layer, Side::kValue));
  }
  return std::unique_ptr<KvCache>(new KvCache(std::move(impl)));
}

const CacheConfig& KvCache::config() const { return impl_->config; }
int KvCache::num_layers() const { return static_cast<int>(impl_->keys.size()); }
KvStore& KvCache::keys(int layer) { return *impl_->keys[static_cast<size_t>(layer)]; }
KvStore& KvCache::values(int layer) { return *impl_->values[static_cast<size_t>(layer)]; }

Status KvCache::Append(int sequence, int layer, int64_t count, const float* k, const float* v,
                       std::span<const int32_t> positions, const TokenClass* maybe_classes) {
  if (layer < 0 || layer >= num_layers() || sequence < 0 || sequence >= impl_->config.num_sequences || count < 0) {
    return Status::InvalidArgument(
        StrFormat("append of %lld rows to layer %d of sequence %d: the cache has %d layers "
                  "and %d sequences",
                  static_cast<long long>(count), layer, sequence, num_layers(), impl_->config.num_sequences));
  }
  const LayerShape& shape = impl_->config.layers[static_cast<size_t>(layer)];
  const auto stride_bytes = [&](int dim) { return sizeof(float) * static_cast<size_t>(shape.kv_heads * dim); };
  const int64_t first = keys(layer).num_rows(sequence);
  std::vector<int64_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), first);
  if (!positions.empty() && positions.size() != rows.size()) {
    return Status::InvalidArgument(StrFormat("append of %zu rows with %zu positions", rows.size(), positions.size()));
  }
  const auto source = [&](const float* data, int dim) {
    return RowSource{.data = data, .row_stride_bytes = stride_bytes(dim), .maybe_classes = maybe_classes};
  };
  KVANT_TRY(keys(layer).Write(Team(), sequence, rows, source(k, shape.k_dim), positions));
  Status status = values(layer).Write(Team(), sequence, rows, source(v, shape.v_dim));
  if (!status.ok()) KVANT_TRY(keys(layer).Truncate(sequence, first));  // K and V stay of one length
  return status;
}

Status KvCache::Seal(int sequence) {
  Status status;
  impl_->AllStores([&](KvStore& store) {
    if (status.ok()) status = store.Seal(Team(), sequence);
  });
  return status;
}

Status KvCache::Fork(int from, int to) {
  Status status;
  impl_->AllStores([&](KvStore& store) {
    if (status.ok()) status = store.Fork(from, to);
  });
  if (status.code() == StatusCode::kOutOfMemory) Clear(to);  // not half a copy
  return status;
}

Status KvCache::Truncate(int sequence, int64_t num_rows) {
  Status status;
  impl_->AllStores([&](KvStore& store) {
    if (status.ok()) status = store.Truncate(sequence, num_rows);
  });
  return status;
}

void KvCache::Clear(int sequence) {
  impl_->AllStores([&](KvStore& store) { store.Clear(sequence); });
}

Footprint KvCache::footprint() const {
  Footprint sum;
  impl_->AllStores([&](const KvStore& store) { sum += store.footprint(); });
  return sum;
}

double KvCache::seal_seconds() const {
  double sum = 0;
  impl_->AllStores([&](const KvStore& store) { sum += store.seal_seconds(); });
  return sum;
}

size_t KvCache::memory_bytes() const { return impl_->pool.reserved_bytes(); }

}  // namespace kvant
