// DeviceCache: making, and steps.
#include <cstring>
#include <numeric>

#include "device_cache/device_cache_impl.cuh"

namespace kvant {
namespace {

constexpr size_t kFetchBytes = 4096;
// Memory beyond what is needed before some is given back.
constexpr size_t kSlackPercent = 25;
constexpr size_t kSlackBytes = size_t{64} << 20;

}  // namespace

Status CheckDeviceCodec(const DeviceCodec& codec) {
  alignas(16) std::byte none[16];
  int32_t slot = 0;
  for (const DeviceSide side : kSides) {
    KVANT_TRY(codec.EncodePages(
        {.side = side, .pages = 0, .kv_heads = 1, .rows = none, .slots = &slot, .pool = none, .refused = &slot},
        nullptr));
    KVANT_TRY(codec.DecodePages({.side = side, .pages = 0, .kv_heads = 1, .pool = none, .slots = &slot, .rows = none},
                                nullptr));
  }
  return Status::Ok();
}

bool HasCudaDevice() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

// ---- Making

Result<std::unique_ptr<DeviceCache>> DeviceCache::Create(const DeviceCacheConfig& config) {
  if (!HasCudaDevice()) return Status::NotSupported("there is no CUDA device");
  for (const DeviceLayer& layer : config.layers) KVANT_TRY(CheckDeviceCodec(*layer.codec));
  auto impl = std::make_unique<Impl>(config);
  KVANT_TRY(impl->Init());
  return std::unique_ptr<DeviceCache>(new DeviceCache(std::move(impl)));
}

DeviceCache::DeviceCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceCache::~DeviceCache() = default;

Status DeviceCache::Impl::Init() {
  KVANT_TRY(MakeCurrent());
  KVANT_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  KVANT_CUDA_TRY(cudaStreamCreateWithFlags(&fetch_stream, cudaStreamNonBlocking));
  KVANT_CUDA_TRY(cudaMallocHost(&fetched, kFetchBytes));
  void* flags = nullptr;
  KVANT_CUDA_TRY(cudaHostAlloc(&flags, kNumRefusals * sizeof(int32_t), cudaHostAllocMapped));
  refused = static_cast<int32_t*>(flags);
  std::fill_n(refused, static_cast<int>(kNumRefusals), 0);
  const auto most_slots = static_cast<size_t>(config.pages.streams) * static_cast<size_t>(PagesOf(config.cells));
  for (const auto& [memory, slots] : {std::pair{&exact, &exact_slots}, std::pair{&sealed, &sealed_slots}}) {
    Result<DeviceRange> range = DeviceRange::Reserve(most_slots * slots->bytes);
    if (!range.ok()) return range.status();
    *memory = *std::move(range);
  }
  step.written.assign(config.layers.size(), false);
  step.sealed.assign(config.layers.size(), true);
  return tickets.Reserve(kDeviceTicketBytes);
}

Status DeviceCache::Impl::Reserve(int64_t exact_end, int64_t sealed_end) {
  const size_t exact_bytes = static_cast<size_t>(exact_end) * exact_slots.bytes;
  const size_t sealed_bytes = static_cast<size_t>(sealed_end) * sealed_slots.bytes;
  if (config.memory_limit_bytes != 0 && exact_bytes + sealed_bytes > config.memory_limit_bytes) {
    return Status::OutOfMemory(StrFormat("the cache needs %zu bytes, and its limit is %zu", exact_bytes + sealed_bytes,
                                         config.memory_limit_bytes));
  }
  KVANT_TRY(exact.Grow(exact_bytes));
  return sealed.Grow(sealed_bytes);
}

// A range whose slots have become few gives memory back, when the device is done with it.
void DeviceCache::Impl::Trim() {
  for (const auto& [memory, slots, table] :
       {std::tuple{&exact, &exact_slots, &map.exact()}, std::tuple{&sealed, &sealed_slots, &map.sealed()}}) {
    const size_t needed = static_cast<size_t>(table->end()) * slots->bytes;
    if (memory->bytes() <= needed + needed * kSlackPercent / 100 + kSlackBytes && table->end() > 0) continue;
    if (memory->bytes() == 0) continue;
    cudaStreamSynchronize(stream);
    memory->Shrink(needed);
  }
}

Status DeviceCache::Impl::TakeRefusals() {
  const bool row = refused[kRow] != 0;
  const bool scale = refused[kScale] != 0;
  refused[kRow] = 0;
  refused[kScale] = 0;
  if (row) {
    return Status::InvalidArgument("a key or value of the model is not a number that fp16 can hold; the cache lost it");
  }
  if (scale) return Status::InvalidArgument("values of the model are too large for the codec; the cache lost a page");
  return Status::Ok();
}

// ---- Steps

int DeviceCache::num_layers() const { return impl_->num_layers(); }
void* DeviceCache::stream() const { return impl_->stream; }

Status DeviceCache::WaitFor(void* event) {
  KVANT_CUDA_TRY(cudaStreamWaitEvent(impl_->stream, static_cast<cudaEvent_t>(event), 0));
  return Status::Ok();
}

Status DeviceCache::Record(void* event) {
  KVANT_CUDA_TRY(cudaEventRecord(static_cast<cudaEvent_t>(event), impl_->stream));
  return Status::Ok();
}

Status DeviceCache::Begin(std::span<const CellPlace> rows, const StreamRange* maybe_range) {
  Impl& m = *impl_;
  KVANT_TRY(m.MakeCurrent());
  KVANT_TRY(m.TakeRefusals());
  // A step that failed half-way: the host forgets its rows, but the pages that it was to seal have others as well.
  KVANT_TRY(SealAll());
  m.Trim();
  const PageMap::WritePlan plan = m.map.PlanWrite(rows);
  KVANT_TRY(m.Reserve(plan.exact_end, plan.sealed_end));
  const PageChanges changes = m.map.Commit(plan);

  m.step = {};
  m.step.rows = plan.rows;
  m.step.written.assign(m.config.layers.size(), false);
  m.step.sealed.assign(m.config.layers.size(), changes.sealed.empty());
  for (size_t i = 0; i < changes.sealed.size(); ++i) {
    m.step.still_exact[{plan.due[i].stream, plan.due[i].page}] = changes.sealed[i].from;
  }
  ArrayPack arrays;
  const size_t targets = arrays.Add(changes.targets);
  if (maybe_range != nullptr) m.AddLists(*maybe_range, &arrays);
  const size_t seal_from = arrays.Add(FromSlots(changes.sealed));
  const size_t seal_to = arrays.Add(ToSlots(changes.sealed));
  const size_t opened_from = arrays.Add(FromSlots(changes.opened));
  const size_t opened_to = arrays.Add(ToSlots(changes.opened));
  KVANT_TRY(m.uploader.Send(arrays.bytes(), &m.step_arrays, m.stream));
  m.step.targets = m.InStep<int32_t>(targets);
  m.step.seal_from = m.InStep<int32_t>(seal_from);
  m.step.seal_to = m.InStep<int32_t>(seal_to);
  m.step.seals = std::ssize(changes.sealed);
  return m.Prepare(changes, opened_from, opened_to);
}

std::span<const CellPlace> DeviceCache::rows() const { return impl_->step.rows; }
bool DeviceCache::written(int layer) const { return impl_->step.written[static_cast<size_t>(layer)]; }

Status DeviceCache::Write(int layer, DeviceRows keys, DeviceRows values) {
  Impl& m = *impl_;
  keys.pool = m.ExactPool(layer, 0);
  values.pool = m.ExactPool(layer, 1);
  keys.slot_stride = values.slot_stride = m.exact_slots.bytes;
  m.step.written[static_cast<size_t>(layer)] = true;
  m.just_seen = false;
  return m.layer(layer).codec->WriteRows({.keys = keys,
                                          .values = values,
                                          .count = static_cast<int32_t>(m.step.rows.size()),
                                          .kv_heads = m.layer(layer).kv_heads,
                                          .targets = m.step.targets,
                                          .refused = m.refusal(Impl::kRow)},
                                         m.stream);
}

std::vector<uint64_t> DeviceCache::LaunchState() const {
  const Impl& m = *impl_;
  std::vector<uint64_t> state = {m.placed[0].room, m.placed[1].room, static_cast<uint64_t>(m.step.rows.size())};
  for (const void* p : {static_cast<const void*>(m.step.targets), static_cast<const void*>(m.step_arrays.data()),
                        static_cast<const void*>(m.tables.data()), static_cast<const void*>(m.workspace.data())}) {
    state.push_back(reinterpret_cast<uint64_t>(p));
  }
  return state;
}

void DeviceCache::MarkWritten() { impl_->step.written.assign(impl_->config.layers.size(), true); }

Status DeviceCache::See(const StreamRange& range, const DeviceMask& mask) {
  Impl& m = *impl_;
  DeviceBuffer* lists = &m.step_arrays;
  if (m.step.listed_range != range) {
    ArrayPack arrays;
    lists = &m.page_lists;
    m.AddLists(range, &arrays);
    KVANT_TRY(m.uploader.Send(arrays.bytes(), lists, m.stream));
    m.step.listed_range = {.first = 0, .count = 0};
  }
  m.seen_rows = range.count * mask.rows;
  const auto rows = static_cast<size_t>(m.seen_rows);
  const size_t counts_bytes = AlignUp(rows * sizeof(int32_t), 256);
  KVANT_TRY(m.tables.Reserve(2 * counts_bytes + rows * (m.placed[0].room + m.placed[1].room) * sizeof(DevicePage)));
  std::byte* table = m.tables.data() + 2 * counts_bytes;
  DevicePageList out[2];
  for (int kind = 0; kind < 2; ++kind) {
    const Impl::List& list = m.placed[kind];
    out[kind] = {
        .pages = lists->data() + list.pages_ofs,
        .counts = reinterpret_cast<const int32_t*>(lists->data() + list.counts_ofs),
        .max_pages = static_cast<int32_t>(list.room),
        .table = table,
        .table_counts = reinterpret_cast<int32_t*>(m.tables.data() + static_cast<size_t>(kind) * counts_bytes)};
    table += rows * list.room * sizeof(DevicePage);
    (kind == 0 ? m.seen_sealed : m.seen_exact) = {
        .table = out[kind].table, .counts = out[kind].table_counts, .max_pages = out[kind].max_pages};
  }
  m.just_seen = true;
  return BuildPageTables({.sealed = out[0],
                          .exact = out[1],
                          .streams = range.count,
                          .rows = mask.rows,
                          .cells = static_cast<int32_t>(range.cells),
                          .maybe_mask = mask.maybe_mask,
                          .mask_row_stride = mask.row_stride,
                          .mask_stream_stride = mask.stream_stride},
                         m.stream);
}

Result<int64_t> DeviceCache::SeenPages() {
  Impl& m = *impl_;
  int64_t sum = 0;
  std::vector<int32_t> counts(static_cast<size_t>(m.seen_rows));
  for (const DevicePages* pages : {&m.seen_sealed, &m.seen_exact}) {
    if (pages->max_pages == 0) continue;
    KVANT_CUDA_TRY(cudaMemcpyAsync(counts.data(), pages->counts, counts.size() * sizeof(int32_t),
                                   cudaMemcpyDeviceToHost, m.stream));
    KVANT_CUDA_TRY(cudaStreamSynchronize(m.stream));
    sum = std::accumulate(counts.begin(), counts.end(), sum);
  }
  return sum;
}

Status DeviceCache::Attend(int l, const DeviceQueries& q) {
  Impl& m = *impl_;
  DeviceAttendArgs args = {.sealed = m.seen_sealed,
                           .exact = m.seen_exact,
                           .sequences = m.seen_rows,
                           .kv_heads = m.layer(l).kv_heads,
                           .heads_per_kv = q.q_heads / m.layer(l).kv_heads,
                           .query_type = DeviceType::kF32,
                           .out_type = DeviceType::kF32,
                           .scale = q.scale,
                           .soft_cap = q.soft_cap,
                           .maybe_sinks = q.maybe_sinks,
                           .queries = q.queries,
                           .out = q.out,
                           .tickets = m.tickets.data(),
                           .sealed_ready = !m.just_seen};
  m.just_seen = false;
  const auto place = [&](DevicePages* pages, std::byte* keys, std::byte* values, size_t stride) {
    pages->key_pool = keys;
    pages->value_pool = values;
    pages->key_stride = pages->value_stride = stride;
  };
  place(&args.sealed, m.SealedPool(l, 0), m.SealedPool(l, 1), m.sealed_slots.bytes);
  place(&args.exact, m.ExactPool(l, 0), m.ExactPool(l, 1), m.exact_slots.bytes);
  const Result<size_t> bytes = m.layer(l).codec->WorkspaceBytes(args);
  if (!bytes.ok()) return bytes.status();
  KVANT_TRY(m.workspace.Reserve(std::max<size_t>(*bytes, 256)));
  args.workspace = m.workspace.data();
  args.workspace_bytes = m.workspace.bytes();
  return m.layer(l).codec->Attend(args, m.stream);
}

Status DeviceCache::Decode(int l, const StreamRange& range, void* keys, void* values) {
  Impl& m = *impl_;
  const int64_t pages = range.cells / kTokensPerPage;
  if (!m.step.has_decode_lists || m.step.decode_range != range) {
    ArrayPack arrays;  // per stream: sealed slots, exact slots
    for (int s = range.first; s < range.first + range.count; ++s) {
      std::vector<int32_t> slots = m.SlotsOf(s, 0, pages, Kind::kSealed, true);
      const std::vector<int32_t> exact = m.SlotsOf(s, 0, pages, Kind::kExact, true);
      slots.insert(slots.end(), exact.begin(), exact.end());
      arrays.Add(slots);
    }
    KVANT_TRY(m.uploader.Send(arrays.bytes(), &m.decode_lists, m.stream));
    m.step.has_decode_lists = true;
    m.step.decode_range = range;
  }
  const size_t list_bytes = AlignUp(static_cast<size_t>(2 * pages) * sizeof(int32_t), 16);
  for (int s = 0; s < range.count; ++s) {
    const auto* slots = reinterpret_cast<const int32_t*>(m.decode_lists.data() + static_cast<size_t>(s) * list_bytes);
    const size_t ofs = static_cast<size_t>(s * range.cells) * m.row_values(l) * sizeof(F16);
    for (int side = 0; side < 2; ++side) {
      void* const rows = side == 0 ? keys : values;
      if (rows == nullptr) continue;
      KVANT_TRY(m.DecodeRows(l, side, false, pages, slots, static_cast<std::byte*>(rows) + ofs));
      KVANT_TRY(m.DecodeRows(l, side, true, pages, slots + pages, static_cast<std::byte*>(rows) + ofs));
    }
  }
  return Status::Ok();
}

Status DeviceCache::Seal(int layer) {
  return impl_->step.sealed[static_cast<size_t>(layer)] ? Status::Ok() : impl_->SealLayer(layer);
}

Status DeviceCache::SealAll() {
  for (int l = 0; l < impl_->num_layers(); ++l) KVANT_TRY(Seal(l));
  return Status::Ok();
}

// Through pinned memory where it fits, which takes half the time.
Status DeviceCache::Fetch(const void* device, size_t bytes, void* host) {
  Impl& m = *impl_;
  void* const to = bytes <= kFetchBytes ? m.fetched : host;
  KVANT_CUDA_TRY(cudaMemcpyAsync(to, device, bytes, cudaMemcpyDeviceToHost, m.fetch_stream));
  KVANT_CUDA_TRY(cudaStreamSynchronize(m.fetch_stream));
  if (to != host) std::memcpy(host, to, bytes);
  return Status::Ok();
}

Status DeviceCache::Synchronize() {
  KVANT_CUDA_TRY(cudaStreamSynchronize(impl_->stream));
  return Status::Ok();
}

}  // namespace kvant
