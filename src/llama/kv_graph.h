// Runs libllama's graphs on the CPU with the nodes on the KV cache replaced by our own.
//
// A claimed node becomes GGML_OP_CUSTOM nodes, which the inner CPU backend runs on its own threads; all of them take
// part (a Team). Attention of few queries reads the pages directly; attention of many queries (prefill) decodes the
// layer's pages to 16 bits once and leaves the rest to the inner FLASH_ATTN_EXT. Pages are sealed after the attention
// of their layer, so the rows of the running chunk are exact.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/float16.h"
#include "base/mapped_memory.h"
#include "base/team.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "llama/graph_runner.h"
#include "llama/kv_ops.h"

namespace kvant {

class KvGraph : public GraphRunner {
 public:
  KvGraph() { SetThreads(GGML_DEFAULT_N_THREADS); }  // what the CPU backend starts with
  Result<ggml_status> Compute(ggml_backend_t inner, ggml_cgraph* graph) override;
  void SetThreads(int num_threads) override;

 private:
  using Work = std::function<Status(const Team&)>;
  struct Step {
    KvGraph* graph;
    Work work;
  };
  /// A layer decoded to F16 for prefill or a shift: [cells * streams, row_values], one after the other for all layers.
  /// Grows on demand; freed by the first graph that needs none, so it takes no memory while tokens are generated.
  struct Scratch {
    MappedMemory keys;
    MappedMemory values;
    F16* key_rows() const { return reinterpret_cast<F16*>(keys.data()); }
    F16* value_rows() const { return reinterpret_cast<F16*>(values.data()); }
  };

  Status Rewrite(const ggml_cgraph& graph);
  Status ReserveScratch(const ggml_cgraph& graph);
  Status AddNode(ggml_tensor* node);
  void AddWrite(const WriteOp& op);
  Result<std::span<const int32_t>> PositionsOf(const WriteOp& op);
  void AddAttention(const AttentionOp& op);
  void AddPrefill(const AttentionOp& op);
  void AddShift(const ShiftOp& op);
  void AddMove(const ShiftOp& op);
  void AddStep(const ggml_tensor& like, Work work);
  ggml_tensor* Copy(const ggml_tensor& node);

  static void RunStep(ggml_tensor* node, int rank, int size, void* step);

  std::vector<ggml_tensor*> nodes_;  ///< the rewritten graph
  std::deque<ggml_tensor> tensors_;  ///< our own nodes and sources in it
  std::deque<Step> steps_;
  std::vector<const ggml_tensor*> ropes_;                         ///< ROPE nodes of the graph so far
  std::map<const ggml_tensor*, std::vector<int32_t>> positions_;  ///< copies of what they turn by
  std::vector<std::unique_ptr<Barrier>> barriers_;                ///< [team size]
  Scratch scratch_;
  AlignedBuffer<std::byte> workspace_;  ///< of Attend
  Status status_;  ///< first error of the running graph; written by a team's leader between two of ggml's barriers
};

}  // namespace kvant
