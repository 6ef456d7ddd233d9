#include "llama/proxy_backend.h"

#include "llama/graph_runner.h"
#include "llama/proxy_device.h"

namespace kvant {
namespace {

struct Backend {
  ProxyDevice* device;
  ggml_backend_t inner;
  std::unique_ptr<GraphRunner> graph;
};

Backend& BackendOf(ggml_backend_t backend) { return *static_cast<Backend*>(backend->context); }

const char* BackendName(ggml_backend_t backend) { return BackendOf(backend).device->name(); }

// What kvant has under way beside the inner backend (sealing) is nothing that a host could ask for.
void Synchronize(ggml_backend_t backend) { ggml_backend_synchronize(BackendOf(backend).inner); }

void FreeBackend(ggml_backend_t backend) {
  Backend* self = &BackendOf(backend);
  Synchronize(backend);
  self->graph.reset();  // before the backend whose events it has
  ggml_backend_free(self->inner);
  delete self;
  delete backend;
}

// Tensors of the inner device, on its stream. The cache's lie elsewhere: for those the inner backend has no such thing.
void SetTensorAsync(ggml_backend_t backend, ggml_tensor* tensor, const void* data, size_t offset, size_t size) {
  const ggml_backend_t inner = BackendOf(backend).inner;
  if (CacheOf(tensor) == nullptr) return inner->iface.set_tensor_async(inner, tensor, data, offset, size);
  Synchronize(backend);
  ggml_backend_tensor_set(tensor, data, offset, size);
}

void GetTensorAsync(ggml_backend_t backend, const ggml_tensor* tensor, void* data, size_t offset, size_t size) {
  const ggml_backend_t inner = BackendOf(backend).inner;
  if (CacheOf(tensor) == nullptr) return inner->iface.get_tensor_async(inner, tensor, data, offset, size);
  Synchronize(backend);
  ggml_backend_tensor_get(tensor, data, offset, size);
}

ggml_status ComputeGraph(ggml_backend_t backend, ggml_cgraph* graph) {
  Backend& self = BackendOf(backend);
  const Result<ggml_status> status = self.graph->Compute(self.inner, graph);
  for (KvBuffer* cache : self.device->buffer_types().caches()) cache->Report();
  if (status.ok()) return *status;
  self.device->errors().Report(status.status());
  return status.status().code() == StatusCode::kOutOfMemory ? GGML_STATUS_ALLOC_FAILED : GGML_STATUS_FAILED;
}

// What is optional is left out, but for the asynchronous copies of an inner backend that has them.
constexpr ggml_backend_i kBackendInterface = {
    .get_name = BackendName,
    .free = FreeBackend,
    .set_tensor_async = nullptr,
    .get_tensor_async = nullptr,
    .set_tensor_2d_async = nullptr,
    .get_tensor_2d_async = nullptr,
    .cpy_tensor_async = nullptr,
    .synchronize = Synchronize,
    .graph_plan_create = nullptr,
    .graph_plan_free = nullptr,
    .graph_plan_update = nullptr,
    .graph_plan_compute = nullptr,
    .graph_compute = ComputeGraph,
    .event_record = nullptr,
    .event_wait = nullptr,
    .graph_optimize = nullptr,
};

ggml_guid kGuid = {0x6b, 0x76, 0x61, 0x6e, 0x74, 0x2d, 0x70, 0x72, 0x6f, 0x78, 0x79, 0x2d, 0x67, 0x67, 0x6d, 0x6c};

}  // namespace

ggml_backend_t NewProxyBackend(ProxyDevice* device, const char* params) {
  ggml_backend_t inner = ggml_backend_dev_init(device->inner(), params);
  if (inner == nullptr) return nullptr;
  auto* context = new Backend{device, inner, device->on_cuda() ? NewDeviceGraph(device->inner()) : NewHostGraph()};
  auto* backend =
      new ggml_backend{.guid = &kGuid, .iface = kBackendInterface, .device = device->device(), .context = context};
  if (inner->iface.set_tensor_async != nullptr) backend->iface.set_tensor_async = SetTensorAsync;
  if (inner->iface.get_tensor_async != nullptr) backend->iface.get_tensor_async = GetTensorAsync;
  return backend;
}

void SetProxyThreads(ggml_backend_t backend, int num_threads) {
  Backend& self = BackendOf(backend);
  const auto set =
      reinterpret_cast<ggml_backend_set_n_threads_t>(self.device->InnerFunction("ggml_backend_set_n_threads"));
  set(self.inner, num_threads);
  self.graph->SetThreads(num_threads);
}

void SetProxyAbortCallback(ggml_backend_t backend, ggml_abort_callback callback, void* data) {
  const Backend& self = BackendOf(backend);
  const auto set = reinterpret_cast<ggml_backend_set_abort_callback_t>(
      self.device->InnerFunction("ggml_backend_set_abort_callback"));
  set(self.inner, callback, data);
}

}  // namespace kvant
