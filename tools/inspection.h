// What a model's cache costs, worked out from its file before anything is run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eval/cache_cost.h"
#include "llama/runner.h"

namespace kvant {

/// Blocks that remember the same things in the same shape.
struct BlockGroup {
  BlockMemory memory = BlockMemory::kAll;
  LayerShape shape = {};         ///< zeros where there is no cache
  std::vector<int> blocks = {};  ///< their numbers, rising
};

/// One cache for the model.
struct CacheLine {
  std::string cache = {};
  double bytes_per_token = 0;  ///< what one more token of a long text costs
  double bits = 0;             ///< per value of sealed pages
  double full_bytes = 0;       ///< at the model's whole context, at most
  int64_t largest_context = 0;
  std::string refused = {};  ///< why not, then without numbers
};

struct Inspection {
  ModelInfo model = {};
  uint64_t memory_bytes = 0;  ///< that largest_context is for; 0: not asked for
  std::vector<BlockGroup> groups = {};
  std::string refused = {};                ///< why kvant cannot keep this model's cache; empty: it can
  std::vector<std::string> meanings = {};  ///< what windows, states and latent rows mean here, in sentences
  std::vector<CacheLine> caches = {};
};

/// What does not depend on caches.
Inspection InspectModel(ModelInfo model, uint64_t memory_bytes);
/// Adds llama.cpp's own caches and the presets. Presets that the model's shapes do not allow say why.
void AddUsualCaches(const std::shared_ptr<const Calibration>& maybe_calibration, Inspection* inspection);
/// Adds a scheme or a plan file. Errors: those of Runner::ReadScheme and CacheCost::Of.
Status AddCache(const std::string& cache, const std::shared_ptr<const Calibration>& maybe_calibration,
                Inspection* inspection);

/// "all tokens", "the last 512 tokens", ...
std::string MemoryText(BlockMemory memory, int window);
/// {0, 1, 2, 5} -> "0-2, 5"; long lists are cut.
std::string RangesText(const std::vector<int>& numbers);

std::string InspectionToText(const Inspection& inspection);
std::string InspectionToJson(const Inspection& inspection, const std::string& kvant_version);

}  // namespace kvant
