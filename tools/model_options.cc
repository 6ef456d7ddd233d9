#include "model_options.h"

#include <algorithm>
#include <thread>

namespace kvant {
namespace {

constexpr int kMaxThreads = 512;

}  // namespace

CLI::AsSizeValue MemorySize() { return CLI::AsSizeValue(true); }

void AddModelOptions(CLI::App& command, ModelOptions& options) {
  options.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  command.add_option("MODEL", options.model, "GGUF file of the model")->required();
  command.add_option("--threads", options.threads, "Threads of the model and of the cache")
      ->check(CLI::Range(1, kMaxThreads))
      ->capture_default_str();
  command
      .add_option("--memory-limit", options.memory_limit, "Most bytes the cache may hold (512MiB, 8GB); 0: no limit")
      ->transform(MemorySize());
}

}  // namespace kvant
