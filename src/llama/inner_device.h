// Which device the proxy wraps.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "ggml-backend.h"
#include "kvant/status.h"

namespace kvant {

/// ggml's registry of devices, which a plug-in has to look for in its host.
struct DeviceRegistry {
  size_t (*count)() = nullptr;
  ggml_backend_dev_t (*get)(size_t index) = nullptr;
};

/// Whether a device is one of ggml's CUDA back end.
bool IsCuda(ggml_backend_dev_t device);

/// "auto": the first CUDA device where the host has its back end and this build has kernels, else the CPU. "cpu", "cuda": the first
/// one of that kind. Anything else: the device of that name ("CUDA1"). Errors: NotFound, saying what there is.
Result<ggml_backend_dev_t> FindInnerDevice(std::string_view name, const DeviceRegistry& registry);
/// "auto" and "cuda": all CUDA devices. Errors as above; never empty.
Result<std::vector<ggml_backend_dev_t>> FindInnerDevices(std::string_view name, const DeviceRegistry& registry);

}  // namespace kvant
