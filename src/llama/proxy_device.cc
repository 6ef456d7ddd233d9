#include "llama/proxy_device.h"

#include <cstdlib>
#include <string_view>

#include "device_cache/device_cache.h"
#include "llama/inner_device.h"
#include "llama/kv_ops.h"
#include "llama/proxy_backend.h"

namespace kvant {
namespace {

// ---- Registry ----

ProxyDevice& DeviceOf(ggml_backend_reg_t reg) { return *static_cast<ProxyDevice*>(reg->context); }

const char* RegName(ggml_backend_reg_t) { return "KVANT"; }
size_t DeviceCount(ggml_backend_reg_t reg) { return DeviceOf(reg).registered().size(); }
ggml_backend_dev_t DeviceAt(ggml_backend_reg_t reg, size_t index) {
  return DeviceOf(reg).registered()[index]->device();
}

ggml_backend_buffer_type_t* ExtraBufferTypes(ggml_backend_dev_t device) {
  const ProxyDevice& proxy = ProxyOf(device);
  const auto inner =
      reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(proxy.InnerFunction("ggml_backend_dev_get_extra_bufts"));
  return inner(proxy.inner());
}

// For hosts that want to show what the cache holds: bytes taken from the system, and the last error's line.
size_t MemoryBytes(ggml_backend_dev_t device) { return ProxyOf(device).memory_bytes(); }
double BitsPerValue(ggml_backend_dev_t device) { return ProxyOf(device).footprint().bits_per_value(); }

void* ProcAddress(ggml_backend_reg_t reg, const char* name) {
  const std::string_view wanted = name;
  if (wanted == "kvant_memory_bytes") return reinterpret_cast<void*>(MemoryBytes);
  if (wanted == "kvant_bits_per_value") return reinterpret_cast<void*>(BitsPerValue);
  void* inner = DeviceOf(reg).InnerFunction(name);
  // Functions that take a backend or a device of ours; the others of the inner registry would get a foreign object.
  if (inner == nullptr) return nullptr;
  if (wanted == "ggml_backend_set_n_threads") return reinterpret_cast<void*>(SetProxyThreads);
  if (wanted == "ggml_backend_set_abort_callback") return reinterpret_cast<void*>(SetProxyAbortCallback);
  if (wanted == "ggml_backend_dev_get_extra_bufts") return reinterpret_cast<void*>(ExtraBufferTypes);
  if (wanted == "ggml_backend_get_features") return inner;
  return nullptr;
}

constexpr ggml_backend_reg_i kRegInterface = {
    .get_name = RegName, .get_device_count = DeviceCount, .get_device = DeviceAt, .get_proc_address = ProcAddress};

// ---- Device ----

const char* DeviceName(ggml_backend_dev_t device) { return ProxyOf(device).name(); }

const char* DeviceDescription(ggml_backend_dev_t device) {
  return ggml_backend_dev_description(ProxyOf(device).inner());
}

void DeviceMemory(ggml_backend_dev_t device, size_t* free, size_t* total) {
  ggml_backend_dev_memory(ProxyOf(device).inner(), free, total);
}

// GPU, so that libllama offloads layers to it.
enum ggml_backend_dev_type DeviceType(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

void DeviceProps(ggml_backend_dev_t device, ggml_backend_dev_props* props) {
  ggml_backend_dev_get_props(ProxyOf(device).inner(), props);
  props->name = DeviceName(device);
  props->type = DeviceType(device);
  props->device_id = nullptr;  // else libllama takes us for a second way to the inner device and skips us
  props->caps.events = false;  // which it would need to run parts of a model side by side
}

ggml_backend_t InitBackend(ggml_backend_dev_t device, const char* params) {
  return NewProxyBackend(&ProxyOf(device), params);
}

ggml_backend_buffer_type_t DeviceBufferType(ggml_backend_dev_t device) {
  return ProxyOf(device).buffer_types().common();
}

ggml_backend_buffer_type_t HostBufferType(ggml_backend_dev_t device) {
  return ggml_backend_dev_host_buffer_type(ProxyOf(device).inner());
}

ggml_backend_buffer_t BufferFromHostPointer(ggml_backend_dev_t device, void* data, size_t bytes, size_t max_tensor) {
  return ggml_backend_dev_buffer_from_host_ptr(ProxyOf(device).inner(), data, bytes, max_tensor);
}

bool SupportsOp(ggml_backend_dev_t device, const ggml_tensor* op) { return ProxyOf(device).SupportsOp(*op); }

bool SupportsBufferType(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
  ProxyDevice& proxy = ProxyOf(device);
  return proxy.buffer_types().Owns(type) || ggml_backend_dev_supports_buft(proxy.inner(), type);
}

bool OffloadOp(ggml_backend_dev_t device, const ggml_tensor* op) {
  return ggml_backend_dev_offload_op(ProxyOf(device).inner(), op);
}

// ggml names them CUDA0, CUDA1, ... in the runtime's order.
int CudaNumber(ggml_backend_dev_t device) {
  const std::string_view name = ggml_backend_dev_name(device);
  const size_t digits = name.find_first_of("0123456789");
  return digits == std::string_view::npos ? 0 : std::atoi(name.data() + digits);
}

constexpr ggml_backend_device_i kDeviceInterface = {
    .get_name = DeviceName,
    .get_description = DeviceDescription,
    .get_memory = DeviceMemory,
    .get_type = DeviceType,
    .get_props = DeviceProps,
    .init_backend = InitBackend,
    .get_buffer_type = DeviceBufferType,
    .get_host_buffer_type = HostBufferType,
    .buffer_from_host_ptr = BufferFromHostPointer,
    .supports_op = SupportsOp,
    .supports_buft = SupportsBufferType,
    .offload_op = OffloadOp,
    .event_new = nullptr,
    .event_free = nullptr,
    .event_synchronize = nullptr,
};

}  // namespace

Result<std::unique_ptr<ProxyDevice>> ProxyDevice::Create(ggml_backend_dev_t inner, const KvSettings& settings) {
  KvSettings own = settings;
  own.on_cuda = IsCuda(inner);
  if (own.on_cuda) own.cuda_device = CudaNumber(inner);
  if (!own.on_cuda && ggml_backend_dev_type(inner) != GGML_BACKEND_DEVICE_TYPE_CPU) {
    return Status::NotSupported(
        StrFormat("cannot wrap device %s; only CPU and CUDA devices", ggml_backend_dev_name(inner)));
  }
  if (own.on_cuda && !HasCudaDevice()) {
    return Status::NotSupported(
        StrFormat("cannot wrap device %s: this build of kvant has no CUDA kernels", ggml_backend_dev_name(inner)));
  }
  return std::unique_ptr<ProxyDevice>(new ProxyDevice(inner, own));
}

ProxyDevice::ProxyDevice(ggml_backend_dev_t inner, const KvSettings& settings)
    : inner_(inner), settings_(settings), buffer_types_(&device_, inner, settings_, &errors_) {
  reg_ = {.api_version = GGML_BACKEND_API_VERSION, .iface = kRegInterface, .context = this};
  device_ = {.iface = kDeviceInterface, .reg = &reg_, .context = this};
}

void ProxyDevice::Join(ProxyDevice* first) {
  name_ = StrFormat("KVANT%zu", first->registered_.size());
  device_.reg = &first->reg_;
  first->registered_.push_back(this);
}

void* ProxyDevice::InnerFunction(const char* name) const {
  return ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(inner_), name);
}

bool ProxyDevice::SupportsOp(const ggml_tensor& op) {
  const Result<bool> claimed = ClaimOp(op);
  if (!claimed.ok()) buffer_types_.RefuseNextAllocation(claimed.status());
  // An op on the cache stays with us even when it is refused: elsewhere the host would copy the cache or abort.
  if (!claimed.ok() || *claimed) return true;
  return !BetterRepacked(op) && ggml_backend_dev_supports_op(inner_, &op);
}

// libllama asks with an empty buffer of a candidate type whether a weight may live there, ours first. Where the inner
// device computes faster from one of its extra types (repacked weights), the answer is no, so that it goes on asking.
bool ProxyDevice::BetterRepacked(const ggml_tensor& op) const {
  if (op.op != GGML_OP_MUL_MAT && op.op != GGML_OP_MUL_MAT_ID) return false;
  const ggml_tensor* weight = op.src[0];
  if (weight->buffer == nullptr || !buffer_types_.Owns(weight->buffer->buft) || weight->buffer->size != 0) return false;
  const auto extra_types =
      reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(InnerFunction("ggml_backend_dev_get_extra_bufts"));
  if (extra_types == nullptr) return false;
  for (ggml_backend_buffer_type_t* type = extra_types(inner_); type != nullptr && *type != nullptr; ++type) {
    ggml_backend_buffer empty = {.iface = {}, .buft = *type, .context = nullptr, .size = 0, .usage = {}};
    ggml_tensor candidate = *weight;
    candidate.buffer = &empty;
    ggml_tensor trial = op;
    trial.src[0] = &candidate;
    if (ggml_backend_dev_supports_op(inner_, &trial)) return true;
  }
  return false;
}

Footprint ProxyDevice::footprint() const {
  Footprint sum;
  for (const KvBuffer* cache : buffer_types_.caches()) sum += cache->footprint();
  return sum;
}

size_t ProxyDevice::memory_bytes() const {
  size_t sum = 0;
  for (const KvBuffer* cache : buffer_types_.caches()) sum += cache->memory_bytes();
  return sum;
}

double ProxyDevice::seal_seconds() const {
  double sum = 0;
  for (const KvBuffer* cache : buffer_types_.caches()) sum += cache->seal_seconds();
  return sum;
}

}  // namespace kvant
