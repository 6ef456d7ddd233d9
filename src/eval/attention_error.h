// Task "attention-error": how far each layer's attention moves when its own K and V are compressed, all else exact.
//
// Cheap beside KL, and it says where: rows and queries come from one run of the fp16 cache, and no model is needed after that.
// Errors of earlier layers are not in it, nor what later ones make of this one's.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/float16.h"
#include "calibrate/row_watcher.h"
#include "eval/task.h"
#include "kvant/calibration.h"
#include "kvant/scheme.h"
#include "kvant/shape.h"

namespace kvant {

/// Rows of K and V of the first tokens of a text in all layers, and the queries in the middle of each page of their second
/// half: there a query finds 32 rows of its own page still exact, as it does on average in decoding.
class AttentionSample : public RowWatcher {
 public:
  /// REQUIRES: tokens is a multiple of 128, at most 65,536 (the largest recent window)
  AttentionSample(std::vector<LayerShape> layers, int64_t tokens);

  bool Wants(RowKind kind) const override { return kind != RowKind::kKeyBeforeRope && kind != RowKind::kOutput; }
  void Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) override;

  /// Relative error of each layer's attention output over its queries, || o' - o || / || o ||: o is attention in double
  /// precision over the fp16 rows, o' the same over the rows as a cache of this scheme gives them back, pages sealed one by
  /// one. Full attention: no windows, caps or slopes. Errors: NotFound for layers of which rows are missing; those of
  /// KvCache::Create, among them that of codecs that keep keys as they were before RoPE, and of Append and decoding.
  Result<std::vector<double>> Errors(const Scheme& scheme, std::shared_ptr<const Calibration> maybe_calibration) const;

 private:
  struct Layer {
    std::vector<F16> rows[2];    ///< K and V [tokens, kv_heads * dim]
    std::vector<float> queries;  ///< [queries, q_heads * k_dim], times the softmax scale
    int64_t seen[3] = {0, 0, 0};
    int q_heads = 0;
  };
  int64_t num_queries() const;
  Result<std::vector<double>> ErrorsOf(class KvCache& exact, class KvCache& coded) const;
  Status Attention(class KvCache& cache, size_t layer, std::vector<float>* out) const;

  const std::vector<LayerShape> shapes_;
  const int64_t tokens_;
  std::vector<Layer> layers_;
};

struct AttentionErrorOptions {
  int tokens = 2048;  ///< of the text, at most; rounded down to pages
};

/// Result: [error of layer 0, 1, ...]; null for caches of the host, and for codecs that need keys as they were before RoPE.
/// Prepare: InvalidArgument when the text is too short for two pages.
std::unique_ptr<Task> MakeAttentionError(const AttentionErrorOptions& options, std::string_view text,
                                         std::string text_name);

}  // namespace kvant
