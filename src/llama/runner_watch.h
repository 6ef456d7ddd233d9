// Shows a RowWatcher what libllama computes for a stock cache, through its callback on graph nodes.
//
// Rows of K and V are what SET_ROWS stores in the cache, queries what FLASH_ATTN_EXT reads; so the names that a model's
// graph gives its nodes do not matter. Keys before RoPE are what the ROPE node behind a row of K reads. That node's result
// may replace its source in memory, so the source has to be seen when it is computed: which nodes these are is learned
// from the first batch, whose keys before RoPE are therefore not seen.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "calibrate/row_watcher.h"
#include "ggml.h"

namespace kvant {

class NodeWatch {
 public:
  /// `watcher` outlives this object.
  explicit NodeWatch(RowWatcher* watcher) : watcher_(watcher) {}

  /// For llama_context_params::cb_eval, with this object as user data.
  static bool OnNode(ggml_tensor* node, bool ask, void* watch);

 private:
  bool Ask(const ggml_tensor& node);
  void Show(const ggml_tensor& node);
  void ShowStored(const ggml_tensor& node);
  void ShowQueries(const ggml_tensor& node);
  void LearnRope(const ggml_tensor& stored, int layer);

  RowWatcher* const watcher_;
  std::vector<float> queries_;  ///< [tokens, heads * dim]
  /// Nodes that compute keys before RoPE: (name, op), with the layer.
  std::map<std::pair<std::string, int>, int> before_rope_;
  std::set<int> no_rope_;  ///< layers without RoPE
};

}  // namespace kvant
