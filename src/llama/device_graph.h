// Runs libllama's graphs on a CUDA device: the inner backend computes what lies between our nodes, piece by piece.
//
// Our kernels have a stream of their own. What stands together on a layer's cache - the writes of K and V and their attention -
// is one *visit*: the stream waits for an event of the inner backend, the visit's kernels follow, and the inner backend waits for
// an event of the stream. Sealing comes after that event, beside the inner backend's next piece. The host waits for nothing; it reads the
// numbers of the cells that a batch is written to, which lie in device memory by then, before anything is under way.
//
// Decoding repeats the same graph for token after token: the second time it is recorded, kernels of both sides in one CUDA graph, and from then on
// it is launched as a whole, until libllama makes another or the cache's lists move. Copies to the device and sealing stay outside.
//
// Attention of many query rows decodes the layer to fp16 within the visit and leaves the rest to the inner FLASH_ATTN_EXT.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "device_cache/device_cache.h"
#include "device_cache/device_launch.h"
#include "ggml-impl.h"
#include "llama/device_outline.h"
#include "llama/device_scratch.h"
#include "llama/graph_runner.h"
#include "llama/kv_ops.h"

namespace kvant {

class DeviceGraph : public GraphRunner {
 public:
  explicit DeviceGraph(ggml_backend_dev_t inner);
  ~DeviceGraph() override;

  Result<ggml_status> Compute(ggml_backend_t inner, ggml_cgraph* graph) override;

 private:
  /// Writes of one layer that have not run yet.
  struct Writes {
    const WriteOp* keys = nullptr;
    const WriteOp* values = nullptr;
  };

  Status RunNodes();
  std::vector<uint64_t> StateToRecord() const;
  Status Record();
  Status Replay();
  Status Gather();
  DeviceCache& main() const { return outline_.steps.front().first_write.cache->device(); }

  Status BeginSteps();
  Status BeginStep(const CacheStep& step);
  Status CheckCells(const CacheStep& step);
  Result<std::vector<CellPlace>> CellsOf(const WriteOp& op);
  Status AddNode(ggml_tensor* node);
  Status AddWrite(const ggml_tensor& node);
  Status AddAttention(const ggml_tensor& node);
  Status AddShift(const ggml_tensor& node);
  Result<bool> AttendsFused(const AttentionOp& op);
  static Status See(const AttentionOp& op);
  Status Attend(const AttentionOp& op);
  Status ReserveScratch(const AttentionOp& op);
  Status DecodeForInner(const AttentionOp& op);
  Status ShiftStream(const ShiftOp& op, int stream);
  Result<std::vector<int32_t>*> ShiftsOf(const ShiftOp& op);

  Status Submit();
  void MakeUnknown(ggml_cgraph* piece);
  Status Enter(DeviceCache* cache);
  Status Leave(DeviceCache* cache);
  Status RunWrites();
  ggml_tensor* Copy(const ggml_tensor& node, bool compute = true);

  ggml_backend_dev_t const device_;
  ggml_backend_event_t inner_done_ = nullptr;
  ggml_backend_event_t ours_done_ = nullptr;

  // The graph at hand.
  ggml_backend_t inner_ = nullptr;
  const ggml_cgraph* graph_ = nullptr;
  std::vector<ggml_tensor*> piece_;                ///< nodes for the inner backend that it does not have yet
  bool piece_is_ours_ = false;                     ///< there are copies among them
  uint64_t inner_work_ = 0;                        ///< how often the inner backend was given something
  std::map<const DeviceCache*, uint64_t> waited_;  ///< how much of it a cache's stream has waited for
  std::deque<ggml_tensor> tensors_;                ///< our copies
  std::deque<WriteOp> write_ops_;
  Writes pending_;
  GraphOutline outline_;
  /// What the tables of a cache were made of, and whether its attention reads pages.
  struct Seen {
    const void* mask = nullptr;
    bool fused = false;
  };
  std::map<const KvBuffer*, Seen> seen_;
  std::map<const void*, std::vector<int32_t>> shifts_;

  // Recorded steps.
  DeviceLaunch launch_;
  std::vector<uint64_t> recorded_;  ///< state of launch_; empty: there is none
  std::vector<uint64_t> last_;      ///< of the graph before
  bool recording_ = false;
  int32_t pieces_recorded_ = 0;

  DeviceScratch keys_, values_;
  int graphs_without_scratch_ = 0;
};

}  // namespace kvant
