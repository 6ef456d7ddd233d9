// The proxy device's backend: an inner backend with the cache's nodes taken out of its graphs.
#pragma once

#include "ggml-backend-impl.h"

namespace kvant {

class ProxyDevice;

/// Null when the inner device makes no backend. Freed by ggml_backend_free; `device` outlives it.
ggml_backend_t NewProxyBackend(ProxyDevice* device, const char* params);

// What the registry hands out for a backend of ours: the inner registry's function on the inner backend.
void SetProxyThreads(ggml_backend_t backend, int num_threads);
void SetProxyAbortCallback(ggml_backend_t backend, ggml_abort_callback callback, void* data);

}  // namespace kvant
