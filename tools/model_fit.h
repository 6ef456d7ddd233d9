// The longest context whose weights, cache and compute buffers fit into a given memory, by filling it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench_model.h"
#include "device_memory.h"
#include "kvant/status.h"

namespace kvant {

/// What one cache has room for.
struct FitRow {
  std::string cache = {};
  int tokens = 0;                 ///< of each sequence
  int64_t used_bytes = 0;         ///< measured with so many tokens in the cache
  double bytes_per_token = 0;     ///< what a longer context costs, of all sequences
  bool is_whole_context = false;  ///< no more tokens are allowed by the model
  double x_first = 0;             ///< tokens relative to the first cache's; 0: that has none
  std::string reason = {};        ///< why nothing fits; empty: something does
};

/// Bytes used at most while a context of `tokens` tokens is filled. Errors: OutOfMemory when they do not suffice.
using FillContext = std::function<Result<int64_t>(int tokens)>;

/// Fills two short contexts, then the one that these promise; where the promise was wrong, further ones. What it returns was
/// filled and stayed within `limit_bytes`; multiples of 256 tokens, or `max_tokens`. Errors: those of `fill`.
Result<FitRow> FindLargestContext(int64_t limit_bytes, int max_tokens, const FillContext& fill);

/// The memory of what the model runs on, now: ReadDeviceMemory for the processors.
using ReadMemory = std::function<DeviceMemory()>;

/// Rows in the order of options.caches; options.lengths is not read. Where memory is read as a high-water mark, each context is
/// filled in a process of its own, else here, and the memory in use is read between chunks. Errors: those of opening the model.
Result<std::vector<FitRow>> FitModel(const BenchModelOptions& options, const ModelInfo& model, int64_t limit_bytes,
                                     const OpenRunner& open, const ReadMemory& read_memory,
                                     const BenchModelProgress& progress);

std::string FitToText(const BenchModelOptions& options, const BenchModelReport& machine, int64_t limit_bytes,
                      const std::vector<FitRow>& rows, bool markdown);
std::string FitToJson(const BenchModelOptions& options, const BenchModelReport& machine, int64_t limit_bytes,
                      const std::vector<FitRow>& rows, const std::string& kvant_version);

}  // namespace kvant
