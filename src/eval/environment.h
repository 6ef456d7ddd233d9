// The machine and the program behind a measurement.
#pragma once

#include <string>

namespace kvant {

struct Environment {
  std::string cpu;      ///< "AMD EPYC 9654 96-Core Processor"; the architecture where the system does not say
  std::string system;   ///< "Linux 6.1.0 x86_64"
  std::string program;  ///< hash of the running executable; empty where the system does not show it
  /// What models run on, with its maker's name unless it is the CPU: "CUDA0, NVIDIA H200"; set by who chooses it.
  std::string device = "CPU";
};

/// Reads what Linux says of itself; never fails, what is unknown stays empty.
Environment ThisEnvironment();

}  // namespace kvant
