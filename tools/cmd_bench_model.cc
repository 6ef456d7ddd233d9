#include "cmd_bench_model.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/output_file.h"
#include "bench_model.h"
#include "cache_list.h"
#include "calibration_option.h"
#include "device_memory.h"
#include "eval/environment.h"
#include "model_fit.h"
#include "model_options.h"
#include "progress.h"
#include "verb.h"

namespace kvant {
namespace {

// Of compute buffers and what the process needs beside weights, cache and logits.
constexpr int64_t kReservedBytes = int64_t{512} << 20;

struct Options {
  ModelOptions model;
  DeviceInfo device;  ///< what model.device means here
  BenchModelOptions bench;
  std::vector<std::string> caches = {"f16,kv4"};
  std::vector<int> lengths = {2048, 8192};
  uint64_t fit = 0;
  bool markdown = false;
  std::string json;
};

void AddOptions(CLI::App& command, Options& o) {
  AddModelOptions(command, o.model);
  command.get_option("--memory-limit")
      ->description("Most bytes the cache may hold (512MiB, 8GB); without it: what is free beside the model");
  command
      .add_option(
          "--cache", o.caches,
          "Caches, with commas between them: presets (kv4), schemes (\"k=int:4 v=int:2\"), plan files (plan.json), "
          "llama.cpp's own types (f16, llama:q8_0); may be repeated. Others are compared with the first")
      ->type_name(kCacheValue)
      ->allow_extra_args(false)
      ->capture_default_str();
  auto* at = command.add_option("--at", o.lengths, "Tokens in the cache, with commas between lengths; may be repeated")
                 ->delimiter(',')
                 ->allow_extra_args(false)
                 ->check(CLI::Range(1, 1 << 24).description("LENGTH,..."))
                 ->default_str("2048,8192");
  command
      .add_option("--fit", o.fit,
                  "Instead of times: the longest context whose weights, cache and buffers fit into this memory "
                  "(16GiB), found by "
                  "filling it")
      ->transform(MemorySize())
      ->type_name(kSizeValue)
      ->excludes(at);
  const auto number = [&](const char* name, int& value, const char* help, int min, int max) {
    command.add_option(name, value, help)->check(CLI::Range(min, max))->capture_default_str();
  };
  number("-n,--predict", o.bench.predict, "Tokens to time decoding with, at each length", 1, 1 << 16);
  number("--sequences", o.bench.runner.sequences, "Sequences of that length, decoded together", 1, 256);
  number("--prompt-batch", o.bench.runner.batch, "Tokens per chunk of prefill", 1, 1 << 16);
  command.add_option("--seed", o.bench.seed, "Seed of the tokens, which are random: the speed does not depend on them")
      ->capture_default_str();
  command.add_flag("--markdown", o.markdown, "Print the table as markdown");
  command.add_option("--json", o.json, "Also write the numbers to this file")->type_name(kFileValue);
}

bool OnCpu(const Options& o) { return o.device.name == "CPU"; }

// Of the device that the model runs on. A GPU says what is in use now, by whomever.
DeviceMemory MemoryOf(const Options& o) {
  if (OnCpu(o)) return ReadDeviceMemory();
  const Result<DeviceInfo> now = Runner::FindDevice(o.device.name);
  if (!now.ok()) return {};
  return {.free_bytes = now->free_bytes, .used_bytes = now->total_bytes - now->free_bytes, .is_high_water = false};
}

// What the cache may hold: the option's, or what is free beside the model.
Result<size_t> MemoryLimit(const Options& o, const ModelInfo& model) {
  if (o.model.memory_limit > 0) return static_cast<size_t>(o.model.memory_limit);
  const int64_t free = MemoryOf(o).free_bytes;
  if (free == 0) return size_t{0};  // unknown: no limit
  const int64_t logits = int64_t{4} * model.vocab_size * o.bench.runner.batch;
  const int64_t left = free - model.file_bytes - logits - kReservedBytes;
  if (left > 0) return static_cast<size_t>(left);
  return Status::OutOfMemory(StrFormat("model %s: its weights take %.2f GB, %.2f GB are free", model.path.c_str(),
                                       static_cast<double>(model.file_bytes) / 1e9, static_cast<double>(free) / 1e9));
}

// A misspelt cache ends the run before the others have taken their time.
Status CheckCaches(const Options& o) {
  for (const std::string& cache : o.bench.caches) {
    if (cache == "f16" || cache.starts_with("llama:")) continue;
    KVANT_TRY(Runner::ReadScheme(o.model.model, cache).status());
  }
  return Status::Ok();
}

Status CheckFit(const Options& o) {
  const int64_t free = MemoryOf(o).free_bytes;
  if (free == 0 || o.fit <= static_cast<uint64_t>(free)) return Status::Ok();
  return Status::InvalidArgument(StrFormat("--fit of %.2f GB: %.2f GB are free", static_cast<double>(o.fit) / 1e9,
                                           static_cast<double>(free) / 1e9));
}

Status FillIn(Options& o, const ModelInfo& model) {
  for (const std::string& list : o.caches) {
    for (std::string& cache : SplitCaches(list)) o.bench.caches.push_back(std::move(cache));
  }
  KVANT_TRY(CheckCaches(o));
  o.bench.lengths = o.lengths;
  std::ranges::sort(o.bench.lengths);
  o.bench.lengths.erase(std::unique(o.bench.lengths.begin(), o.bench.lengths.end()), o.bench.lengths.end());
  const Result<DeviceInfo> device = Runner::FindDevice(o.model.device);
  if (!device.ok()) return device.status();
  o.device = *device;
  RunnerOptions& runner = o.bench.runner;
  runner.device = device->name;
  runner.model_path = o.model.model;
  runner.threads = o.model.threads;
  if (o.fit > 0) {
    KVANT_TRY(CheckFit(o));
    runner.memory_limit_bytes = o.fit;  // a larger cache alone would be too much
  } else {
    KVANT_TRY(CheckLengths(o.bench, model));
    const Result<size_t> limit = MemoryLimit(o, model);
    if (!limit.ok()) return limit.status();
    runner.memory_limit_bytes = *limit;
  }
  const auto calibration = OpenCalibration(o.model.calibration, o.model.model, o.bench.caches);
  if (!calibration.ok()) return calibration.status();
  runner.maybe_calibration = *calibration;
  return Status::Ok();
}

/// What is printed, and what goes to --json.
struct Output {
  std::string text;
  std::string json;
};

Result<Output> Measure(const Options& o, BenchModelReport report) {
  Progress progress;
  Result<std::vector<BenchModelRow>> rows =
      BenchModel(o.bench, Runner::Open,
                 [&](std::string_view cache, int64_t done, int64_t total) { progress.Show(cache, done, total); });
  if (!rows.ok()) return rows.status();
  report.rows = *std::move(rows);
  return Output{BenchModelToText(o.bench, report, o.markdown), BenchModelToJson(o.bench, report, KVANT_VERSION)};
}

Result<Output> MeasureFit(const Options& o, const BenchModelReport& machine) {
  const auto limit = static_cast<int64_t>(o.fit);
  Progress progress;
  const auto show = [&](std::string_view cache, int64_t done, int64_t total) {
    progress.Show(cache, done, total);
    if (done == total) progress.Clear();  // the process that draws may end here
  };
  const Result<std::vector<FitRow>> rows = FitModel(
      o.bench, machine.model, limit, Runner::Open, [&] { return MemoryOf(o); }, show);
  if (!rows.ok()) return rows.status();
  return Output{FitToText(o.bench, machine, limit, *rows, o.markdown),
                FitToJson(o.bench, machine, limit, *rows, KVANT_VERSION)};
}

Status Run(Options& o) {
  std::optional<OutputFile> json;
  if (!o.json.empty()) {
    Result<OutputFile> file = OutputFile::Open(o.json);
    if (!file.ok()) return file.status();
    json = *std::move(file);
  }
  Result<ModelInfo> model = Runner::Inspect(o.model.model);
  if (!model.ok()) return model.status();
  KVANT_TRY(FillIn(o, *model));
  const Environment environment = ThisEnvironment();
  const BenchModelReport machine = {.model = *std::move(model),
                                    .device = OnCpu(o) ? environment.cpu : o.device.name + ", " + o.device.description,
                                    .system = environment.system};
  const Result<Output> output = o.fit > 0 ? MeasureFit(o, machine) : Measure(o, machine);
  if (!output.ok()) return output.status();
  std::fputs(output->text.c_str(), stdout);
  return json ? json->Write(output->json) : Status::Ok();
}

}  // namespace

std::function<Status()> AddBenchModel(CLI::App& bench) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand("model", "Prefill and decoding of a whole model with several caches");
  AddOptions(*command, *options);
  return [options] { return Run(*options); };
}

}  // namespace kvant
