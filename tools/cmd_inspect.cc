// kvant inspect: what a model's cache costs, before anything is run.
#include <cstdio>
#include <memory>

#include "cache_list.h"
#include "calibration_option.h"
#include "inspection.h"
#include "model_options.h"
#include "verb.h"

namespace kvant {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> caches;
  std::string calibration;
  uint64_t memory = 0;
  bool json = false;
};

Status AddCaches(const Options& o, Inspection* inspection) {
  std::vector<std::string> caches;
  for (const std::string& list : o.caches) {
    for (std::string& cache : SplitCaches(list)) caches.push_back(std::move(cache));
  }
  const auto calibration = OpenCalibration(o.calibration, o.model, caches);
  if (!calibration.ok()) return calibration.status();
  AddUsualCaches(*calibration, inspection);
  for (const std::string& cache : caches) KVANT_TRY(AddCache(cache, *calibration, inspection));
  return Status::Ok();
}

Status Run(const Options& o) {
  Result<ModelInfo> model = Runner::Inspect(o.model);
  if (!model.ok()) return model.status();
  Inspection inspection = InspectModel(*std::move(model), o.memory);
  if (inspection.refused.empty()) KVANT_TRY(AddCaches(o, &inspection));
  std::fputs((o.json ? InspectionToJson(inspection, KVANT_VERSION) : InspectionToText(inspection)).c_str(), stdout);
  if (!inspection.refused.empty()) return Status::NotSupported(o.model + ": " + inspection.refused);
  return Status::Ok();
}

}  // namespace

Verb AddInspectVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a model's cache costs with each preset");
  command->add_option("MODEL", options->model, "GGUF file of the model")->type_name(kModelValue)->required();
  command->add_option("--cache", options->caches, "Further schemes or plan files, with commas between them")
      ->type_name(kCacheValue)
      ->allow_extra_args(false);
  AddCalibrationOption(*command, options->calibration);
  command->add_option("--memory", options->memory, "Show the largest context for this much memory (8GiB, 500MB)")
      ->transform(MemorySize())
      ->type_name(kSizeValue);
  command->add_flag("--json", options->json, "Print JSON instead of tables");
  return {command,
          [options] { return Run(*options); },
          {{"kvant inspect model.gguf", "What a token costs in the cache with each preset"},
           {"kvant inspect model.gguf --memory 8G --cache \"k=int:4 v=kivi:2\"",
            "The longest context that fits into 8 GB, for a scheme of your own too"},
           {"kvant inspect model.gguf --memory 8G --json", "The same for a program"}}};
}

}  // namespace kvant
