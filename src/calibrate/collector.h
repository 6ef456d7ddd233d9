// Statistics of a model at work, in bounded memory: a sample of the rows of K and V, and what an error in them costs.
//
// Rows are kept as whole pages of 64 consecutive tokens, since codecs encode whole pages: every n-th page of what is
// read, so the sample is the same in every run. What an error costs has two parts: how much attention the row gets
// (window_attention.h), and in which directions an error shows: for keys the second moments of the queries that meet
// them, for values those of the output projection that they go through.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/float16.h"
#include "calibrate/row_watcher.h"
#include "calibrate/window_attention.h"
#include "codec/codec.h"
#include "kvant/shape.h"

namespace kvant {

struct CollectorOptions {
  std::vector<LayerShape> layers;  ///< by layer number
  int64_t max_pages = 256;         ///< kept at most
  bool keys = true;                ///< keys after RoPE
  bool keys_before_rope = false;
};

class Collector : public RowWatcher {
 public:
  explicit Collector(const CollectorOptions& options) : options_(options) {}

  /// Pages that will be read, of which an even share is kept. Before the first batch; what comes before that is ignored,
  /// output projections apart.
  void Expect(int64_t total_pages) { total_pages_ = total_pages; }
  /// The next `count` tokens that are fed stand at `first_pos` of a text's window. REQUIRES: both are multiples of 64.
  /// The first page of a window is not kept: its first tokens are unlike all others, and caches keep them exact.
  void BeginBatch(int64_t first_pos, int64_t count);
  /// After the last batch.
  void EndWindow();

  bool Wants(RowKind kind) const override;
  void Add(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride) override;

  /// Rows that are kept of each head.
  int64_t num_rows() const { return pages_kept_ * kTokensPerPage; }
  /// Those of one head as floats [num_rows, dim], kKey, kKeyBeforeRope or kValue. Errors: NotFound when the model has
  /// shown none for this layer or not all.
  Result<std::vector<float>> Rows(RowKind kind, int layer, int head) const;
  /// What an error in these rows counts [num_rows], mean 1. REQUIRES: all that was expected has come.
  std::vector<float> Weights(int layer, int head) const;
  /// Metric of one KV head [dim, dim], scaled to a trace of dim. Errors: NotFound.
  Result<std::vector<double>> Metric(Side side, int layer, int head) const;

 private:
  struct Sample {
    int64_t rows = 0;         ///< filled so far
    std::vector<F16> values;  ///< [max rows][kv_heads * dim]
  };
  struct Moments {
    int dim = 0;
    std::vector<double> sums;  ///< [kv_heads][dim, dim]
  };
  void Keep(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride);
  void AddAttention(int layer, int64_t count, int width, const float* rows, size_t stride);
  void AddMoments(RowKind kind, int layer, int64_t count, int width, const float* rows, size_t stride);
  bool IsKept(int64_t page) const;

  const CollectorOptions options_;
  int64_t total_pages_ = 0;
  int64_t pages_seen_ = 0;  ///< in whole batches before the one at hand
  int64_t pages_kept_ = 0;
  std::vector<bool> batch_;                              ///< which pages of the batch are kept
  std::map<std::pair<RowKind, int>, int64_t> position_;  ///< rows of the batch that came so far
  std::map<std::pair<RowKind, int>, Sample> samples_;
  std::map<std::pair<RowKind, int>, Moments> moments_;
  std::map<int, WindowAttention> attention_;   ///< by layer, of the window at hand
  std::map<int, std::vector<double>> masses_;  ///< by layer: [num_rows][kv_heads]
  std::vector<int64_t> kept_positions_;        ///< of the window at hand
  int64_t first_pos_ = 0;                      ///< of the batch at hand
};

}  // namespace kvant
