#include "llama/proxy_buffer_type.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/aligned_buffer.h"

namespace kvant {
namespace {

// ---- Buffers that are a cache. ggml's set, get and copy return nothing, so failures become damage. ----

struct CacheBuffer {
  ProxyBufferTypes* types;
  std::unique_ptr<KvBuffer> cache;
};

CacheBuffer& ContextOf(ggml_backend_buffer_t buffer) { return *static_cast<CacheBuffer*>(buffer->context); }

void Note(CacheBuffer& buffer, const Status& status) {
  if (status.ok()) return;
  buffer.types->errors().Report(status);
  buffer.cache->set_damage(status);
}

std::byte* Address(const ggml_tensor* tensor, size_t offset) { return static_cast<std::byte*>(tensor->data) + offset; }

void FreeCache(ggml_backend_buffer_t buffer) {
  ContextOf(buffer).types->Forget(ContextOf(buffer).cache.get());
  delete &ContextOf(buffer);
}

void* CacheBase(ggml_backend_buffer_t buffer) { return ContextOf(buffer).cache->base(); }

ggml_status InitCacheTensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor) {
  if (tensor->view_src == nullptr && ParseKvName(tensor->name)) ContextOf(buffer).cache->AddTensor(*tensor);
  return GGML_STATUS_SUCCESS;
}

void FillCacheTensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor, uint8_t value, size_t offset, size_t size) {
  CacheBuffer& context = ContextOf(buffer);
  if (value != 0) {
    Note(context, Status::NotSupported("the host filled cache rows with a value that is not zero"));
    return;
  }
  Note(context, context.cache->ZeroBytes(Address(tensor, offset), size));
}

void SetCacheTensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor, const void* data, size_t offset, size_t size) {
  CacheBuffer& context = ContextOf(buffer);
  Note(context, context.cache->WriteBytes(Address(tensor, offset), {static_cast<const std::byte*>(data), size}));
}

void GetCacheTensor(ggml_backend_buffer_t buffer, const ggml_tensor* tensor, void* data, size_t offset, size_t size) {
  CacheBuffer& context = ContextOf(buffer);
  Note(context, context.cache->ReadBytes(Address(tensor, offset), {static_cast<std::byte*>(data), size}));
}

// False: ggml copies through set and get.
bool CopyCacheTensor(ggml_backend_buffer_t buffer, const ggml_tensor* source, ggml_tensor* target) {
  CacheBuffer& context = ContextOf(buffer);
  if (CacheOf(source) != context.cache.get()) return false;
  const Status status = context.cache->CopyStream(source->data, target->data, ggml_nbytes(source));
  if (status.code() == StatusCode::kNotSupported) return false;
  Note(context, status);
  return true;
}

void ClearCache(ggml_backend_buffer_t buffer, uint8_t) { ContextOf(buffer).cache->Clear(); }

constexpr ggml_backend_buffer_i kCacheInterface = {
    .free_buffer = FreeCache,
    .get_base = CacheBase,
    .init_tensor = InitCacheTensor,
    .memset_tensor = FillCacheTensor,
    .set_tensor = SetCacheTensor,
    .get_tensor = GetCacheTensor,
    .set_tensor_2d = nullptr,
    .get_tensor_2d = nullptr,
    .cpy_tensor = CopyCacheTensor,
    .clear = ClearCache,
    .reset = nullptr,
};

// ---- Buffer types ----

ProxyBufferTypes& TypesOf(ggml_backend_buffer_type_t type) { return *static_cast<ProxyBufferTypes*>(type->context); }

const char* CommonName(ggml_backend_buffer_type_t) { return "KVANT0"; }
const char* CacheName(ggml_backend_buffer_type_t) { return "KVANT0_KV"; }

ggml_backend_buffer_t AllocateCommon(ggml_backend_buffer_type_t type, size_t size) {
  return TypesOf(type).Allocate(size);
}

ggml_backend_buffer_t AllocateCopy(ggml_backend_buffer_type_t type, size_t size) {
  return ggml_backend_buft_alloc_buffer(TypesOf(type).inner(), size);
}

size_t Alignment(ggml_backend_buffer_type_t type) { return ggml_backend_buft_get_alignment(TypesOf(type).inner()); }
size_t MaxSize(ggml_backend_buffer_type_t type) { return ggml_backend_buft_get_max_size(TypesOf(type).inner()); }
bool IsHost(ggml_backend_buffer_type_t type) { return ggml_backend_buft_is_host(TypesOf(type).inner()); }

size_t CommonAllocSize(ggml_backend_buffer_type_t type, const ggml_tensor* tensor) {
  return TypesOf(type).AllocSize(*tensor);
}

// Its own, so that placing tensors in a cache buffer does not announce another cache.
size_t CacheAllocSize(ggml_backend_buffer_type_t, const ggml_tensor* tensor) { return ggml_nbytes(tensor); }

bool IsNotHost(ggml_backend_buffer_type_t) { return false; }

}  // namespace

ProxyBufferTypes::ProxyBufferTypes(ggml_backend_dev_t proxy, ggml_backend_dev_t inner, const KvSettings& settings,
                                   ErrorLog* errors)
    : inner_(ggml_backend_dev_buffer_type(inner)), settings_(settings), errors_(errors) {
  common_ = {.iface = {.get_name = CommonName,
                       .alloc_buffer = AllocateCommon,
                       .get_alignment = Alignment,
                       .get_max_size = MaxSize,
                       .get_alloc_size = CommonAllocSize,
                       .is_host = IsHost},
             .device = proxy,
             .context = this};
  cache_ = {.iface = {.get_name = CacheName,
                      .alloc_buffer = AllocateCopy,
                      .get_alignment = Alignment,
                      .get_max_size = nullptr,
                      .get_alloc_size = CacheAllocSize,
                      .is_host = IsNotHost},
            .device = proxy,
            .context = this};
}

// ---- The handshake ----

size_t ProxyBufferTypes::AllocSize(const ggml_tensor& tensor) {
  const size_t bytes = ggml_backend_buft_get_alloc_size(inner_, &tensor);
  const bool is_cache = tensor.op == GGML_OP_NONE && IsCacheName(tensor.name);
  // Asked for every node of every graph: no lock on that path.
  if (!is_cache && !announcing_.load(std::memory_order_relaxed)) return bytes;
  const std::lock_guard lock(mutex_);
  if (!is_cache) {
    ForgetAnnounced();
  } else if (const Status status = Announce(tensor, bytes); !status.ok() && refusal_.ok()) {
    refusal_ = status;
  }
  return bytes;
}

void ProxyBufferTypes::ForgetAnnounced() {
  announced_.clear();
  announcing_ = false;
}

Status ProxyBufferTypes::Announce(const ggml_tensor& tensor, size_t bytes) {
  KVANT_TRY(CheckCacheTensor(tensor));
  const KvName name = *ParseKvName(tensor.name);
  const bool again = std::ranges::any_of(
      announced_, [&](const Announced& a) { return a.name.side == name.side && a.name.layer == name.layer; });
  if (again) announced_.clear();  // the host asked for sizes without an allocation and starts over
  announced_.push_back({name, AlignUp(bytes, ggml_backend_buft_get_alignment(inner_))});
  announcing_ = true;
  return Status::Ok();
}

bool ProxyBufferTypes::AnnouncedCache(size_t bytes) const {
  const size_t sum = std::accumulate(announced_.begin(), announced_.end(), size_t{0},
                                     [](size_t total, const Announced& a) { return total + a.bytes; });
  return !announced_.empty() && sum == bytes;
}

ggml_backend_buffer_t ProxyBufferTypes::Allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  const bool is_cache = AnnouncedCache(bytes);
  const auto keys = std::ranges::count_if(announced_, [](const Announced& a) { return a.name.side == Side::kKey; });
  const bool has_values = 2 * keys == static_cast<ptrdiff_t>(announced_.size());
  ForgetAnnounced();
  Status status = std::exchange(refusal_, Status::Ok());
  if (status.ok() && is_cache && !has_values) {
    status = Status::NotSupported("the model caches one latent row for K and V (MLA), which is not supported");
  }
  if (status.ok() && !is_cache) return ggml_backend_buft_alloc_buffer(inner_, bytes);
  if (status.ok()) {
    Result<ggml_backend_buffer_t> buffer = AllocateCache(bytes);
    if (buffer.ok()) return *buffer;
    status = buffer.status();
  }
  errors_->Report(status);
  return nullptr;
}

Result<ggml_backend_buffer_t> ProxyBufferTypes::AllocateCache(size_t bytes) {
  Result<std::unique_ptr<KvBuffer>> cache = KvBuffer::Create(settings_, bytes);
  if (!cache.ok()) return cache.status();
  auto* context = new CacheBuffer{this, std::move(cache).value()};
  caches_.push_back(context->cache.get());
  ggml_backend_buffer_t buffer = ggml_backend_buffer_init(&cache_, kCacheInterface, context, bytes);
  context->cache->ReportTo(&buffer->size);
  return buffer;
}

void ProxyBufferTypes::Forget(KvBuffer* cache) {
  const std::lock_guard lock(mutex_);
  std::erase(caches_, cache);
}

void ProxyBufferTypes::RefuseNextAllocation(const Status& why) {
  const std::lock_guard lock(mutex_);
  if (refusal_.ok()) refusal_ = why;
}

std::vector<KvBuffer*> ProxyBufferTypes::caches() const {
  const std::lock_guard lock(mutex_);
  return caches_;
}

KvBuffer* CacheOf(const ggml_tensor* maybe_tensor) {
  if (maybe_tensor == nullptr) return nullptr;
  const ggml_tensor* root = maybe_tensor->view_src ? maybe_tensor->view_src : maybe_tensor;
  const ggml_backend_buffer_t buffer = root->buffer;
  if (buffer == nullptr || buffer->iface.free_buffer != FreeCache) return nullptr;
  return ContextOf(buffer).cache.get();
}

}  // namespace kvant
