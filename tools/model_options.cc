#include "model_options.h"

#include <algorithm>
#include <thread>

#include "calibration_option.h"
#include "verb.h"

namespace kvant {
namespace {

constexpr int kMaxThreads = 512;

}  // namespace

CLI::AsSizeValue MemorySize() { return CLI::AsSizeValue(true); }

void AddThreadsOption(CLI::App& command, int& threads) {
  threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  command.add_option("--threads", threads, "Threads of the model and of the cache")
      ->check(CLI::Range(1, kMaxThreads))
      ->default_str("all cores");
}

void AddDeviceOption(CLI::App& command, std::string& device) {
  device = "auto";
  command
      .add_option(
          "--device", device,
          "Where the model runs and its cache lies: cpu, cuda, a name such as CUDA1; auto: a CUDA device where there "
          "is one, else the CPU")
      ->type_name("DEVICE")
      ->envname("KVANT_DEVICE")
      ->default_str("auto");
}

void AddModelOptions(CLI::App& command, ModelOptions& options) {
  command.add_option("MODEL", options.model, "GGUF file of the model")->type_name(kModelValue)->required();
  AddDeviceOption(command, options.device);
  AddThreadsOption(command, options.threads);
  AddCalibrationOption(command, options.calibration);
  command
      .add_option("--memory-limit", options.memory_limit, "Most bytes the cache may hold (512MiB, 8GB); 0: no limit")
      ->transform(MemorySize())
      ->type_name(kSizeValue);
}

}  // namespace kvant
