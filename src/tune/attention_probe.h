// What a codec does to the attention output of one layer, measured on rows of the model but without running it again: a
// cheap stand-in for the divergence.
//
//   error = || attention(q, K', V') - attention(q, K, V) || / || attention(q, K, V) ||
//
// over the queries of the last page of a text; K' or V' is what is left of the rows before it after encoding, K and V are
// exact. The Frobenius norm goes over queries and heads.
#pragma once

#include <memory>
#include <vector>

#include "calibrate/row_watcher.h"
#include "kvant/calibration.h"
#include "kvant/scheme.h"
#include "kvant/shape.h"

namespace kvant {

/// Collects rows while a runner reads a text once, then measures.
class AttentionProbe : public RowWatcher {
 public:
  /// The queries of tokens `num_rows` and later are asked over the rows 0 .. num_rows - 1 only, which a cache has sealed.
  AttentionProbe(std::vector<LayerShape> layers, int64_t num_rows);

  bool Wants(RowKind kind) const override;
  void Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) override;
  /// Forgets what came so far: the first batch of a model serves to learn its graph.
  void Clear();

  /// Errors: NotFound when the model has not shown all rows of the layer; those of encoding.
  Result<double> Error(int layer, bool is_key, const CodecChoice& choice, int sink_tokens,
                       std::shared_ptr<const Calibration> maybe_calibration) const;

 private:
  struct Layer {
    std::vector<float> keys;     ///< [num_rows, kv_heads * k_dim]
    std::vector<float> values;   ///< [num_rows, kv_heads * v_dim]
    std::vector<float> queries;  ///< [asked, q_heads * k_dim], times the softmax scale
    int64_t keys_seen = 0, values_seen = 0, queries_seen = 0;
  };
  std::vector<float> Attend(const Layer& layer, const LayerShape& shape, const std::vector<float>& keys,
                            const std::vector<float>& values) const;

  const std::vector<LayerShape> shapes_;
  const int64_t num_rows_;
  std::vector<Layer> layers_;
};

}  // namespace kvant
