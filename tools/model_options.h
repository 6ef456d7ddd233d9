// Options that several verbs share, with the same names, limits and help.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace kvant {

struct ModelOptions {
  std::string model;
  std::string device;
  int threads = 0;            ///< set by AddModelOptions
  uint64_t memory_limit = 0;  ///< of the cache in bytes; 0: none
  std::string calibration;    ///< for OpenCalibration
};

/// Adds MODEL, --device, --threads, --calibration and --memory-limit.
void AddModelOptions(CLI::App& command, ModelOptions& options);

/// Adds --device, for RunnerOptions::device.
void AddDeviceOption(CLI::App& command, std::string& device);

/// Adds --threads, with as many as the machine has for the default.
void AddThreadsOption(CLI::App& command, int& threads);

/// Reads "8GiB", "500MB", "4096" as bytes: KB is 1000, KiB 1024. For CLI::Option::transform.
CLI::AsSizeValue MemorySize();

}  // namespace kvant
