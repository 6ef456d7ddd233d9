// libggml-kvant.so: what a llama.cpp program loads with ggml_backend_load() or GGML_BACKEND_PATH.
//
// Settings, from the environment, since a host passes none:
//   KVANT_SCHEME        scheme text, preset, or path of a plan that kvant tune made for the host's model; default kv4
//   KVANT_DEVICE        device to wrap: cpu, cuda, or a name such as CUDA1; default auto: CUDA where host and plug-in have it
//   KVANT_CALIBRATION   file of `kvant calibrate`, made for the host's model; default none
//   KVANT_MEMORY_LIMIT  bytes of each cache, with K, M or G behind the number; default no limit
#include <dlfcn.h>

#include <charconv>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kvant/plan.h"
#include "llama/host_check.h"
#include "llama/inner_device.h"
#include "llama/proxy_device.h"

namespace kvant {
namespace {

constexpr const char* kDefaultScheme = "kv4";

std::string_view Environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

Result<size_t> ParseBytes(std::string_view text) {
  constexpr std::string_view kUnits = "KMG";
  size_t bytes = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bytes);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const bool known = unit.empty() || (unit.size() == 1 && kUnits.find(unit) != std::string_view::npos);
  const size_t shift = unit.empty() ? 0 : 10 * (kUnits.find(unit) + 1);
  if (error != std::errc() || !known || bytes > (SIZE_MAX >> shift)) {
    return Status::InvalidArgument("KVANT_MEMORY_LIMIT=" + std::string(text) +
                                   ": not a number of bytes, such as 512M or 8G");
  }
  return bytes << shift;
}

// The host opens the model without telling us which: that the calibration and the plan are of this model is for the user
// to see to. What does not fit the model's shapes or its number of layers is refused when a context is made.
Result<std::shared_ptr<const Calibration>> ReadCalibration() {
  const std::string path(Environment("KVANT_CALIBRATION", ""));
  if (path.empty()) return std::shared_ptr<const Calibration>();
  return Calibration::Load(path);
}

// ggml's registry is in libggml, which we do not link: it would bring a CPU backend of its own into a host that has
// another variant loaded. The host's copy is found by its name, loaded into whatever scope.
DeviceRegistry HostRegistry() {
  void* ggml = dlopen("libggml.so.0", RTLD_NOW | RTLD_NOLOAD);
  const auto find = [ggml](const char* name) { return dlsym(ggml != nullptr ? ggml : RTLD_DEFAULT, name); };
  return {reinterpret_cast<decltype(&ggml_backend_dev_count)>(find("ggml_backend_dev_count")),
          reinterpret_cast<decltype(&ggml_backend_dev_get)>(find("ggml_backend_dev_get"))};
}

Result<std::vector<std::unique_ptr<ProxyDevice>>> MakeDevices() {
  KVANT_TRY(CheckHost(LoadedGgml(), BuiltAgainst()));
  const Result<Scheme> scheme = ReadScheme(Environment("KVANT_SCHEME", kDefaultScheme));
  if (!scheme.ok()) return Status::InvalidArgument("KVANT_SCHEME: " + scheme.status().message());
  const auto calibration = ReadCalibration();
  if (!calibration.ok()) return Status::InvalidArgument("KVANT_CALIBRATION: " + calibration.status().message());
  const Result<size_t> limit = ParseBytes(Environment("KVANT_MEMORY_LIMIT", "0"));
  if (!limit.ok()) return limit.status();
  const DeviceRegistry registry = HostRegistry();
  if (registry.count == nullptr || registry.get == nullptr || registry.count() == 0) {
    return Status::NotFound("the host has loaded no CPU backend; load this plug-in after it");
  }
  const auto inner = FindInnerDevices(Environment("KVANT_DEVICE", "auto"), registry);
  if (!inner.ok()) return Status::NotFound("KVANT_DEVICE: " + inner.status().message());
  std::vector<std::unique_ptr<ProxyDevice>> devices;
  for (ggml_backend_dev_t device : *inner) {
    auto made = ProxyDevice::Create(
        device, {.scheme = *scheme, .memory_limit_bytes = *limit, .maybe_calibration = *calibration});
    if (!made.ok()) return made.status();
    devices.push_back(std::move(made).value());
    if (devices.size() > 1) devices.back()->Join(devices.front().get());
  }
  return devices;
}

}  // namespace
}  // namespace kvant

extern "C" {
GGML_BACKEND_API ggml_backend_reg_t ggml_backend_init();
}

// Null: the host goes on without a KVANT0 device; the reason is in its log.
ggml_backend_reg_t ggml_backend_init() {
  static kvant::Result<std::vector<std::unique_ptr<kvant::ProxyDevice>>> devices = kvant::MakeDevices();
  if (devices.ok()) return devices->front()->reg();
  kvant::ErrorLog().Report(devices.status());
  return nullptr;
}
