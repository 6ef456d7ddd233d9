#include "inspection.h"

#include <algorithm>

#include "kvant/plan.h"

namespace kvant {
namespace {

/// llama.cpp's own caches for comparison: ggml's blocks of 32 values with one fp16 scale.
struct HostType {
  const char* name;
  double bits;
};
constexpr HostType kHostTypes[] = {{"f16", 16}, {"llama:q8_0", 8.5}, {"llama:q4_0", 4.5}};

// libllama gives layers with a window this many more cells than the window, for the batch at hand, and rounds up.
constexpr int64_t kBatchCells = 512;
constexpr int64_t kCellRounding = 256;

bool SameShape(const LayerShape& a, const LayerShape& b) {
  return a.kv_heads == b.kv_heads && a.k_dim == b.k_dim && a.v_dim == b.v_dim;
}

std::vector<BlockGroup> GroupBlocks(const ModelInfo& model) {
  std::vector<BlockGroup> groups;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    const BlockInfo& block = model.blocks[i];
    const LayerShape shape = block.layer < 0 ? LayerShape{} : model.layers[static_cast<size_t>(block.layer)];
    const auto same = std::ranges::find_if(
        groups, [&](const BlockGroup& g) { return g.memory == block.memory && SameShape(g.shape, shape); });
    if (same == groups.end()) {
      groups.push_back({.memory = block.memory, .shape = shape, .blocks = {static_cast<int>(i)}});
    } else {
      same->blocks.push_back(static_cast<int>(i));
    }
  }
  return groups;
}

std::vector<int> BlocksWith(const ModelInfo& model, std::initializer_list<BlockMemory> kinds) {
  std::vector<int> blocks;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    if (std::ranges::find(kinds, model.blocks[i].memory) != kinds.end()) blocks.push_back(static_cast<int>(i));
  }
  return blocks;
}

int64_t WindowRows(const ModelInfo& model) {
  const int64_t cells = (model.window + kBatchCells + kCellRounding - 1) / kCellRounding * kCellRounding;
  return std::min<int64_t>(cells, model.context_train);
}

double ValuesPerToken(const LayerShape& s) { return static_cast<double>(s.kv_heads) * (s.k_dim + s.v_dim); }

double ValuesPerToken(const ModelInfo& model) {
  double values = 0;
  for (const LayerShape& layer : model.layers) values += ValuesPerToken(layer);
  return values;
}

double ValuesPerTokenWith(const ModelInfo& model, BlockMemory memory) {
  double values = 0;
  for (const BlockInfo& block : model.blocks) {
    if (block.memory == memory) values += ValuesPerToken(model.layers[static_cast<size_t>(block.layer)]);
  }
  return values;
}

CacheLine HostLine(const HostType& type, const Inspection& inspection) {
  const ModelInfo& model = inspection.model;
  const double in_window = ValuesPerTokenWith(model, BlockMemory::kWindow) * type.bits / 8;
  const double per_token = ValuesPerToken(model) * type.bits / 8 - in_window;
  const double rows = static_cast<double>(WindowRows(model));
  const double memory = static_cast<double>(inspection.memory_bytes);
  const double behind_window = memory - (per_token + in_window) * rows;
  double fits = memory / (per_token + in_window);
  if (behind_window > 0) fits = per_token > 0 ? rows + behind_window / per_token : model.context_train;
  return {.cache = type.name,
          .bytes_per_token = per_token,
          .bits = type.bits,
          .full_bytes = in_window * rows + per_token * model.context_train,
          .largest_context = static_cast<int64_t>(std::min<double>(fits, model.context_train))};
}

void AddMeanings(Inspection* inspection) {
  const ModelInfo& model = inspection->model;
  const auto add = [&](std::initializer_list<BlockMemory> kinds, const char* format, auto... values) {
    const std::vector<int> blocks = BlocksWith(model, kinds);
    if (blocks.empty()) return false;
    inspection->meanings.push_back("Blocks " + RangesText(blocks) + StrFormat(format, values...));
    return true;
  };
  add({BlockMemory::kWindow},
      " look back %d tokens (sliding window). kvant keeps them like the others, in a cache of their own that stops "
      "growing at %lld rows, which are then written over.",
      model.window, static_cast<long long>(WindowRows(model)));
  if (add({BlockMemory::kLatent},
          " keep one latent row for K and V together (MLA). kvant has no codec for that and refuses the model.")) {
    inspection->refused = "the model caches one latent row for K and V (MLA), which is not supported";
  }
  if (add({BlockMemory::kState, BlockMemory::kAllAndState},
          " keep a state of fixed size (recurrent). It does not grow with the text, so there is nothing to compress, "
          "but "
          "kvant cannot hold it for llama.cpp and refuses the model.")) {
    inspection->refused = "the model has recurrent blocks, which are not supported";
  }
  add({BlockMemory::kNothing}, " have no attention and no cache.");
  if (inspection->refused.empty() && model.layers.empty()) inspection->refused = "the model has no attention layers";
}

}  // namespace

std::string MemoryText(BlockMemory memory, int window) {
  switch (memory) {
    case BlockMemory::kAll:
      return "all tokens";
    case BlockMemory::kWindow:
      return StrFormat("the last %d tokens", window);
    case BlockMemory::kLatent:
      return "latent rows (MLA)";
    case BlockMemory::kState:
      return "a state (recurrent)";
    case BlockMemory::kAllAndState:
      return "all tokens and a state";
    case BlockMemory::kNothing:
      return "nothing";
  }
  return "";
}

std::string RangesText(const std::vector<int>& numbers) {
  constexpr int kMostRanges = 6;
  std::string text;
  int ranges = 0;
  for (size_t first = 0, next = 0; first < numbers.size(); first = next) {
    for (next = first + 1; next < numbers.size() && numbers[next] == numbers[next - 1] + 1;) ++next;
    text += first == 0 ? "" : ", ";
    if (++ranges > kMostRanges) return text + StrFormat("... (%zu in all)", numbers.size());
    text += std::to_string(numbers[first]) + (next - first > 1 ? "-" + std::to_string(numbers[next - 1]) : "");
  }
  return text;
}

Inspection InspectModel(ModelInfo model, uint64_t memory_bytes) {
  Inspection inspection{.model = std::move(model), .memory_bytes = memory_bytes};
  inspection.groups = GroupBlocks(inspection.model);
  AddMeanings(&inspection);
  return inspection;
}

Status AddCache(const std::string& cache, const std::shared_ptr<const Calibration>& maybe_calibration,
                Inspection* inspection) {
  const ModelInfo& model = inspection->model;
  // A plan has to be of this model, which takes libllama; scheme text does not.
  const Result<Scheme> scheme = IsPlanPath(cache) ? Runner::ReadScheme(model.path, cache) : Scheme::Parse(cache);
  if (!scheme.ok()) return scheme.status();
  Result<CacheCost> cost = CacheCost::Of(*scheme, model.layers, maybe_calibration);
  if (!cost.ok()) return cost.status();
  const double bits = 8 * cost->BytesPerToken() / ValuesPerToken(model);
  for (const BlockInfo& block : model.blocks) {
    if (block.memory == BlockMemory::kWindow) cost->LimitRows(block.layer, WindowRows(model));
  }
  inspection->caches.push_back(
      {.cache = cache,
       .bytes_per_token = cost->BytesPerToken(),
       .bits = bits,
       .full_bytes = static_cast<double>(cost->PeakBytes(model.context_train)),
       .largest_context = cost->LargestContext(inspection->memory_bytes, model.context_train)});
  return Status::Ok();
}

void AddUsualCaches(const std::shared_ptr<const Calibration>& maybe_calibration, Inspection* inspection) {
  for (const HostType& type : kHostTypes) inspection->caches.push_back(HostLine(type, *inspection));
  for (const Preset& preset : Presets()) {
    const std::string name(preset.name);
    const Status added = AddCache(name, maybe_calibration, inspection);
    if (!added.ok()) inspection->caches.push_back({.cache = name, .refused = added.message()});
  }
}

}  // namespace kvant
