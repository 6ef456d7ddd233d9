// Runs libllama's graphs on an inner backend, with the nodes on the KV cache taken out and done by kvant.
#pragma once

#include <memory>

#include "ggml-backend-impl.h"
#include "kvant/status.h"

namespace kvant {

/// Attention of up to this many query rows per stream reads the compressed pages; more decode the layer first. Reading
/// costs the same again for each query row, decoding only once; 8 rows cover speculative decoding.
constexpr int64_t kMaxFusedQueries = 8;

/// One per backend; used by one thread at a time.
class GraphRunner {
 public:
  virtual ~GraphRunner() = default;
  /// Computes `graph` on `inner` and returns what that says. Errors: those of the cells (OutOfMemory, InvalidArgument), damage
  /// of a cache, NotSupported for an op that planning did not show.
  virtual Result<ggml_status> Compute(ggml_backend_t inner, ggml_cgraph* graph) = 0;
  /// At most this many threads run a graph.
  virtual void SetThreads(int) {}
};

/// For an inner backend of a CPU (kv_graph), of a CUDA device (device_graph).
std::unique_ptr<GraphRunner> NewHostGraph();
std::unique_ptr<GraphRunner> NewDeviceGraph(ggml_backend_dev_t inner);

}  // namespace kvant
