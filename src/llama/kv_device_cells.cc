// Cells on a CUDA device: a DeviceCache.
#include <algorithm>
#include <map>
#include <utility>

#include "device_cache/device_cache.h"
#include "llama/kv_cells.h"

namespace kvant {
namespace {

class DeviceCells : public KvCells {
 public:
  explicit DeviceCells(std::unique_ptr<DeviceCache> cache) : cache_(std::move(cache)) {}

  Status Read(const KvTensor& tensor, int stream, int64_t first, int64_t count, F16* rows) override {
    return cache_->Read(tensor.index, tensor.name.side, stream, first, count, rows);
  }
  Status Write(const KvTensor& tensor, int stream, int64_t first, int64_t count, const F16* rows) override {
    return cache_->Restore(tensor.index, tensor.name.side, stream, first, count, rows);
  }
  Status Fork(const KvTensor&, int from, int to) override {
    cache_->Fork(from, to);
    return Status::Ok();
  }
  Status Truncate(const KvTensor&, int stream, int64_t rows) override {
    cache_->Truncate(stream, rows);
    return Status::Ok();
  }
  int64_t num_rows(const KvTensor&, int stream) const override { return cache_->num_rows(stream); }
  void Clear() override { cache_->Clear(); }
  Footprint footprint() const override { return cache_->footprint(); }
  size_t memory_bytes() const override { return cache_->memory_bytes(); }
  double seal_seconds() const override { return 0; }  // the device seals beside other work: nobody waits for it
  DeviceCache* device() override { return cache_.get(); }

 private:
  std::unique_ptr<DeviceCache> cache_;
};

Status AtLayer(const KvTensor& tensor, const Status& status) {
  return Status::NotSupported(StrFormat("layer %d, on a CUDA device: %s", tensor.name.layer, status.message().c_str()));
}

/// Layers of the same codecs and head size share what kernels know.
class LayerMaker {
 public:
  LayerMaker(const KvSettings& settings, int num_layers) : settings_(settings), num_layers_(num_layers) {}

  Result<DeviceLayer> Make(const KvLayer& layer) {
    if (layer.keys->dim != layer.values->dim) {
      return AtLayer(*layer.keys, Status::NotSupported("keys and values have heads of different size"));
    }
    const Result<Codec> key = HostCodec(*layer.keys);
    if (!key.ok()) return key.status();
    const Result<Codec> value = HostCodec(*layer.values);
    if (!value.ok()) return value.status();
    auto codec = DeviceCodecOf(*layer.keys);
    if (!codec.ok()) return AtLayer(*layer.keys, codec.status());
    return DeviceLayer{.key = *key, .value = *value, .codec = *codec, .kv_heads = layer.keys->heads};
  }

 private:
  const CodecChoice& Choice(const KvTensor& tensor) const {
    return settings_.scheme.Choice(tensor.name.layer, tensor.name.side == Side::kKey);
  }
  Result<Codec> HostCodec(const KvTensor& tensor) const {
    return MakeCodec(
        Choice(tensor).name, Choice(tensor).options,
        {.side = tensor.name.side, .dim = tensor.dim, .layer = tensor.name.layer, .num_layers = num_layers_});
  }
  Result<std::shared_ptr<const DeviceCodec>> DeviceCodecOf(const KvTensor& keys) {
    const CodecChoice& key = settings_.scheme.Choice(keys.name.layer, true);
    const CodecChoice& value = settings_.scheme.Choice(keys.name.layer, false);
    std::shared_ptr<const DeviceCodec>& codec = made_[{key.ToString(), value.ToString(), keys.dim}];
    if (codec == nullptr) {
      Result<std::unique_ptr<DeviceCodec>> made = DeviceCodec::Create(key, value, keys.dim);
      if (!made.ok()) return made.status();
      codec = std::move(made).value();
    }
    return codec;
  }

  const KvSettings& settings_;
  const int num_layers_;
  std::map<std::tuple<std::string, std::string, int>, std::shared_ptr<const DeviceCodec>> made_;
};

}  // namespace

Result<std::unique_ptr<KvCells>> MakeDeviceCells(const KvSettings& settings, const std::vector<KvLayer>& layers) {
  DeviceCacheConfig config{.layers = {},
                           .pages = {.streams = 1,
                                     .sink_tokens = settings.scheme.sink_tokens,
                                     .recent_tokens = settings.scheme.recent_tokens},
                           .cells = 0,
                           .memory_limit_bytes = settings.memory_limit_bytes,
                           .device = settings.cuda_device};
  int num_layers = 0;
  for (const KvLayer& layer : layers) num_layers = std::max(num_layers, layer.keys->name.layer + 1);
  LayerMaker maker(settings, num_layers);
  for (const KvLayer& layer : layers) {
    Result<DeviceLayer> made = maker.Make(layer);
    if (!made.ok()) return made.status();
    config.layers.push_back(*std::move(made));
    config.pages.streams = layer.keys->streams;
    config.cells = layer.keys->cells;
  }
  Result<std::unique_ptr<DeviceCache>> cache = DeviceCache::Create(config);
  if (!cache.ok()) return cache.status();
  return std::unique_ptr<KvCells>(std::make_unique<DeviceCells>(std::move(cache).value()));
}

Status CheckDeviceLayer(const KvSettings& settings, const KvLayer& layer, int num_layers) {
  const Result<DeviceLayer> made = LayerMaker(settings, num_layers).Make(layer);
  if (!made.ok()) return made.status();
  const Status codable = CheckDeviceCodec(*made->codec);
  return codable.ok() ? codable : AtLayer(*layer.keys, codable);
}

}  // namespace kvant
