#include "llama/inner_device.h"

#include <algorithm>
#include <string>

#include "device_cache/device_cache.h"

namespace kvant {
namespace {

bool IsCpu(ggml_backend_dev_t device) { return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU; }

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

bool Matches(ggml_backend_dev_t device, const std::string& name) {
  if (name == "cpu") return IsCpu(device);
  if (name == "cuda") return IsCuda(device);
  return Lower(ggml_backend_dev_name(device)) == name && (IsCpu(device) || IsCuda(device));
}

}  // namespace

bool IsCuda(ggml_backend_dev_t device) {
  ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(device);
  return registry != nullptr && std::string_view(ggml_backend_reg_name(registry)) == "CUDA";
}

Result<std::vector<ggml_backend_dev_t>> FindInnerDevices(std::string_view name, const DeviceRegistry& registry) {
  const std::string wanted = Lower(name);
  if (wanted == "auto") {
    if (HasCudaDevice()) {
      const auto cuda = FindInnerDevices("cuda", registry);
      if (cuda.ok()) return cuda;
    }
    return FindInnerDevices("cpu", registry);
  }
  std::vector<ggml_backend_dev_t> found;
  std::string there;
  for (size_t i = 0; i < registry.count(); ++i) {
    ggml_backend_dev_t device = registry.get(i);
    if (Matches(device, wanted)) found.push_back(device);
    if (IsCpu(device) || IsCuda(device))
      there += std::string(there.empty() ? "" : ", ") + ggml_backend_dev_name(device);
  }
  if (!found.empty()) return found;
  return Status::NotFound("device " + std::string(name) + ": libllama has none; it has " +
                          (there.empty() ? "no device that kvant can use" : there));
}

Result<ggml_backend_dev_t> FindInnerDevice(std::string_view name, const DeviceRegistry& registry) {
  const auto found = FindInnerDevices(name, registry);
  if (!found.ok()) return found.status();
  return found->front();
}

}  // namespace kvant
