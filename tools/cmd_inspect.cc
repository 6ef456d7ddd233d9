// kvant inspect: what a model's cache costs, before anything is run.
#include <cstdio>
#include <memory>
#include <optional>

#include "cache_list.h"
#include "calibration_option.h"
#include "eval/cache_cost.h"
#include "eval/table.h"
#include "llama/runner.h"
#include "model_options.h"
#include "verb.h"

namespace kvant {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> caches;
  std::string calibration;
  uint64_t memory = 0;
};

/// llama.cpp's own caches for comparison: ggml's blocks of 32 values with one fp16 scale.
struct HostType {
  const char* name;
  double bits;
};
constexpr HostType kHostTypes[] = {{"f16", 16}, {"llama:q8_0", 8.5}, {"llama:q4_0", 4.5}};

size_t ValuesPerToken(const LayerShape& s) {
  return static_cast<size_t>(s.kv_heads) * static_cast<size_t>(s.k_dim + s.v_dim);
}

size_t ValuesPerToken(const ModelInfo& model) {
  size_t values = 0;
  for (const LayerShape& layer : model.layers) values += ValuesPerToken(layer);
  return values;
}

bool SameShape(const LayerShape& a, const LayerShape& b) {
  return a.kv_heads == b.kv_heads && a.k_dim == b.k_dim && a.v_dim == b.v_dim;
}

// One row per run of equal layers.
std::string LayerTable(const ModelInfo& model) {
  Table table({{"layers"}, {"KV heads", true}, {"K size", true}, {"V size", true}, {"fp16 bytes per token", true}});
  const auto& layers = model.layers;
  for (size_t first = 0, next = 0; first < layers.size(); first = next) {
    while (next < layers.size() && SameShape(layers[first], layers[next])) ++next;
    const LayerShape& s = layers[first];
    table.AddRow({next - first == 1 ? StrFormat("%zu", first) : StrFormat("%zu-%zu", first, next - 1),
                  std::to_string(s.kv_heads), std::to_string(s.k_dim), std::to_string(s.v_dim),
                  std::to_string(2 * ValuesPerToken(s))});
  }
  return table.ToText();
}

/// The lines about caches; the last column is there when a memory size is given.
class CostTable {
 public:
  CostTable(const ModelInfo& model, std::shared_ptr<const Calibration> calibration, uint64_t memory_bytes)
      : model_(model),
        calibration_(std::move(calibration)),
        memory_bytes_(memory_bytes),
        table_(Columns(model, memory_bytes)) {}

  void AddHostType(const HostType& type) {
    const double per_token = static_cast<double>(ValuesPerToken(model_)) * type.bits / 8;
    const auto fits = static_cast<int64_t>(static_cast<double>(memory_bytes_) / per_token);
    AddRow(type.name, per_token, per_token * model_.context_train, std::min<int64_t>(fits, model_.context_train));
  }
  Status AddScheme(const std::string& name) {
    const Result<Scheme> scheme = Runner::ReadScheme(model_.path, name);
    if (!scheme.ok()) return scheme.status();
    const Result<CacheCost> cost = CacheCost::Of(*scheme, model_.layers, calibration_);
    if (!cost.ok()) return cost.status();
    AddRow(name, cost->BytesPerToken(), static_cast<double>(cost->PeakBytes(model_.context_train)),
           cost->LargestContext(memory_bytes_, model_.context_train));
    return Status::Ok();
  }
  std::string ToText() const { return table_.ToText(); }

 private:
  static std::vector<Column> Columns(const ModelInfo& model, uint64_t memory_bytes) {
    std::vector<Column> columns = {{"cache"},
                                   {"bytes per token", true},
                                   {"bits", true},
                                   {StrFormat("MB at %d tokens", model.context_train), true}};
    if (memory_bytes) {
      columns.push_back({StrFormat("context in %.2f GB", static_cast<double>(memory_bytes) / 1e9), true});
    }
    return columns;
  }
  void AddRow(const std::string& name, double per_token, double full_bytes, int64_t largest) {
    const double bits = 8 * per_token / static_cast<double>(ValuesPerToken(model_));
    std::vector<std::string> cells = {name, StrFormat("%.0f", per_token), StrFormat("%.2f", bits),
                                      StrFormat("%.1f", full_bytes / 1e6)};
    if (memory_bytes_) {
      cells.push_back((largest >= model_.context_train ? "all " : "") + std::to_string(largest));
    }
    table_.AddRow(std::move(cells));
  }

  const ModelInfo& model_;
  const std::shared_ptr<const Calibration> calibration_;
  uint64_t memory_bytes_;
  Table table_;
};

Status Run(const Options& o) {
  const Result<ModelInfo> model = Runner::Inspect(o.model);
  if (!model.ok()) return model.status();
  std::vector<std::string> caches;
  for (const std::string& list : o.caches) {
    for (std::string& cache : SplitCaches(list)) caches.push_back(std::move(cache));
  }
  const auto calibration = OpenCalibration(o.calibration, o.model, caches);
  if (!calibration.ok()) return calibration.status();
  CostTable costs(*model, *calibration, o.memory);
  for (const HostType& type : kHostTypes) costs.AddHostType(type);
  for (const Preset& preset : Presets()) KVANT_TRY(costs.AddScheme(std::string(preset.name)));
  for (const std::string& cache : caches) KVANT_TRY(costs.AddScheme(cache));
  std::printf("%s: %s, %.1f M parameters, %.1f MB, vocabulary %d, context %d, %d query heads; supported\n\n%s\n%s\n",
              o.model.c_str(), model->architecture.c_str(), static_cast<double>(model->parameters) / 1e6,
              static_cast<double>(model->file_bytes) / 1e6, model->vocab_size, model->context_train, model->q_heads,
              LayerTable(*model).c_str(), costs.ToText().c_str());
  std::printf("Bits: of sealed pages. MB: with sinks, recent window and open pages, at most.\n");
  return Status::Ok();
}

}  // namespace

Verb AddInspectVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a model's cache costs with each preset");
  command->add_option("MODEL", options->model, "GGUF file of the model")->required();
  command->add_option("--cache", options->caches, "Further schemes or plan files, with commas between them")
      ->allow_extra_args(false);
  AddCalibrationOption(*command, options->calibration);
  command->add_option("--memory", options->memory, "Show the largest context for this much memory (8GiB, 500MB)")
      ->transform(MemorySize());
  return {command, [options] { return Run(*options); }};
}

}  // namespace kvant
