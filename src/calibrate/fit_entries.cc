#include "calibrate/fit_entries.h"

#include <cstring>

#include "base/aligned_buffer.h"
#include "codec/calibrated.h"

namespace kvant {
namespace {

// The rows and the metric of one basis: a KV head's, or those of all heads.
struct Observed {
  std::vector<float> rows;
  std::vector<float> weights;
  std::vector<double> metric;
};

Status Observe(const Codec& codec, int layer, int first_head, int num_heads, const Collector& collector,
               Observed* out) {
  const Side side = codec.shape().side;
  const RowKind kind = side == Side::kValue            ? RowKind::kValue
                       : codec.state->keys_before_rope ? RowKind::kKeyBeforeRope
                                                       : RowKind::kKey;
  for (int head = first_head; head < first_head + num_heads; ++head) {
    const Result<std::vector<float>> rows = collector.Rows(kind, layer, head);
    if (!rows.ok()) return rows.status();
    out->rows.insert(out->rows.end(), rows->begin(), rows->end());
    const std::vector<float> weights = collector.Weights(layer, head);
    out->weights.insert(out->weights.end(), weights.begin(), weights.end());
    const Result<std::vector<double>> metric = collector.Metric(side, layer, head);
    if (!metric.ok()) return metric.status();
    out->metric.resize(metric->size());
    for (size_t i = 0; i < metric->size(); ++i) out->metric[i] += (*metric)[i] / num_heads;
  }
  return Status::Ok();
}

Status FitOne(const Codec& codec, const Observed& observed, std::byte* out) {
  AlignedBuffer<std::byte> basis(codec.state->basis_bytes);
  if (basis.data() == nullptr) return Status::OutOfMemory("no memory for a basis");
  std::memset(basis.data(), 0, basis.size());
  KVANT_TRY(codec.info->fit_basis(*codec.state,
                                  {.rows = observed.rows.data(),
                                   .tokens = observed.rows.size() / static_cast<size_t>(codec.shape().dim),
                                   .maybe_weights = observed.weights.data(),
                                   .maybe_metric = observed.metric.data()},
                                  basis.data()));
  if (codec.info->check_basis != nullptr) KVANT_TRY(codec.info->check_basis(*codec.state, basis.data()));
  std::memcpy(out, basis.data(), basis.size());
  return Status::Ok();
}

}  // namespace

Result<Codec> CodecOfLayer(const CalibrationTarget& target, const std::vector<LayerShape>& layers, int layer) {
  const LayerShape& shape = layers[static_cast<size_t>(layer)];
  Result<Codec> codec = MakeCodec(target.choice.name, target.choice.options,
                                  {.side = target.side,
                                   .dim = target.side == Side::kKey ? shape.k_dim : shape.v_dim,
                                   .layer = layer,
                                   .num_layers = static_cast<int>(layers.size())});
  if (!codec.ok()) return codec;
  if (codec->state->basis_bytes > 0 && codec->info->fit_basis != nullptr) return codec;
  return Status::NotFound("codec " + target.choice.ToString() + " has nothing to calibrate for " +
                          (target.side == Side::kKey ? "keys" : "values"));
}

Result<CalibrationEntry> FitEntry(const CalibrationTarget& target, const std::vector<LayerShape>& layers, int layer,
                                  const Collector& collector) {
  const Result<Codec> codec = CodecOfLayer(target, layers, layer);
  if (!codec.ok()) return codec.status();
  const int kv_heads = layers[static_cast<size_t>(layer)].kv_heads;
  const int num_bases = codec->state->basis_per_layer ? 1 : kv_heads;
  CalibrationEntry entry = {
      .codec = CalibrationKey(*codec->info, target.choice.options),
      .is_key = target.side == Side::kKey,
      .layer = layer,
      .num_bases = num_bases,
      .bytes = std::vector<std::byte>(static_cast<size_t>(num_bases) * codec->state->basis_bytes)};
  for (int i = 0; i < num_bases; ++i) {
    Observed observed;
    Status status = Observe(*codec, layer, i, kv_heads / num_bases, collector, &observed);
    if (status.ok()) {
      status = FitOne(*codec, observed, entry.bytes.data() + static_cast<size_t>(i) * codec->state->basis_bytes);
    }
    if (status.ok()) continue;
    return Status(status.code(), StrFormat("layer %d %s, %s: %s", layer, entry.is_key ? "K" : "V", entry.codec.c_str(),
                                           status.message().c_str()));
  }
  return entry;
}

}  // namespace kvant
