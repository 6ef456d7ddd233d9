#include "device_cache/device_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "base/cuda.h"
#include "base/cuda_buffer.h"
#include "device_cache/device_range.h"

namespace kvant {
namespace {

using Kind = MappedPage::Kind;

// Pages decoded to rows at a time where they only pass through (sealing, opening, reading).
constexpr int64_t kBatchPages = 64;
constexpr size_t kFetchBytes = 4096;
// Lists of exact pages grow by so many at a time.
constexpr size_t kExactPageRoom = 8;
// Memory beyond what is needed before some is given back.
constexpr size_t kSlackPercent = 25;
constexpr size_t kSlackBytes = size_t{64} << 20;

int64_t PagesOf(int64_t rows) { return (rows + kTokensPerPage - 1) / kTokensPerPage; }

constexpr DeviceSide kSides[2] = {DeviceSide::kKey, DeviceSide::kValue};
constexpr DeviceSide kExactSides[2] = {DeviceSide::kExactKey, DeviceSide::kExactValue};

/// Where the blocks of K and V of each layer lie in a slot.
struct SlotLayout {
  std::vector<size_t> ofs[2];  ///< [side][layer]
  size_t bytes = 0;

  SlotLayout(const std::vector<DeviceLayer>& layers, const DeviceSide (&sides)[2]) {
    for (const DeviceLayer& layer : layers) {
      for (int side = 0; side < 2; ++side) {
        ofs[side].push_back(bytes);
        bytes += AlignUp(static_cast<size_t>(layer.kv_heads) * layer.codec->BlockBytes(sides[side]), 256);
      }
    }
  }
};

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

struct DeviceCache::Impl {
  explicit Impl(const DeviceCacheConfig& c)
      : config(c), map(c.pages), exact_slots(c.layers, kExactSides), sealed_slots(c.layers, kSides) {}
  ~Impl() {
    cudaSetDevice(config.device);
    if (stream != nullptr) cudaStreamSynchronize(stream);
    if (stream != nullptr) cudaStreamDestroy(stream);
    if (fetch_stream != nullptr) cudaStreamDestroy(fetch_stream);
    cudaFreeHost(fetched);
    cudaFreeHost(const_cast<int32_t*>(refused));
  }

  const DeviceCacheConfig config;
  PageMap map;
  const SlotLayout exact_slots;
  const SlotLayout sealed_slots;
  cudaStream_t stream = nullptr;
  cudaStream_t fetch_stream = nullptr;
  DeviceRange exact;
  DeviceRange sealed;

  void* fetched = nullptr;  ///< [kFetchBytes], pinned
  // Written by kernels, read by the host: a row that is no fp16 number, a page that kernels cannot read.
  enum Refusal { kRow, kScale, kNumRefusals };
  volatile int32_t* refused = nullptr;  ///< [kNumRefusals], mapped host memory

  Uploader uploader;
  DeviceBuffer step_arrays;
  DeviceBuffer page_lists;
  DeviceBuffer decode_lists;
  DeviceBuffer tables;
  DeviceBuffer workspace;
  DeviceBuffer tickets;
  DeviceBuffer row_scratch;  ///< [kBatchPages, 64, kv_heads, dim] fp16, or rows of a state

  // The step under way.
  struct Step {
    std::vector<CellPlace> rows;
    std::vector<bool> written, sealed;                       ///< [layers]
    std::map<std::pair<int, int64_t>, int32_t> still_exact;  ///< pages that it seals: their exact slots
    const int32_t* targets = nullptr;                        ///< device, as those below
    const int32_t *seal_from = nullptr, *seal_to = nullptr;
    int64_t seals = 0;
    StreamRange listed_range = {.first = 0, .count = 0};  ///< whose pages are in step_arrays
    bool has_decode_lists = false;
    StreamRange decode_range;
  };
  Step step;
  /// Where the lists of pages lie: [sealed, exact].
  struct List {
    size_t pages_ofs = 0, counts_ofs = 0;
    size_t room = 0;  ///< pages of a stream
  };
  List placed[2];
  // What was last seen.
  DevicePages seen_sealed, seen_exact;
  int32_t seen_rows = 0;

  Status MakeCurrent() const {
    KVANT_CUDA_TRY(cudaSetDevice(config.device));
    return Status::Ok();
  }
  const DeviceLayer& layer(int i) const { return config.layers[static_cast<size_t>(i)]; }
  int num_layers() const { return static_cast<int>(config.layers.size()); }
  size_t row_values(int l) const {
    return static_cast<size_t>(layer(l).kv_heads) * static_cast<size_t>(layer(l).codec->dim());
  }

  std::byte* ExactPool(int l, int side) const { return exact.data() + exact_slots.ofs[side][static_cast<size_t>(l)]; }
  std::byte* SealedPool(int l, int side) const {
    return sealed.data() + sealed_slots.ofs[side][static_cast<size_t>(l)];
  }
  int32_t* refusal(Refusal which) const { return const_cast<int32_t*>(refused) + which; }

  Status Init();
  Status Reserve(int64_t exact_end, int64_t sealed_end);
  void Trim();
  Status TakeRefusals();

  // ---- between pools and rows; slots are device arrays
  Status DecodeRows(int l, int side, bool is_exact, int64_t pages, const int32_t* slots, void* rows) const;
  Status EncodeRows(int l, int side, bool is_exact, int64_t pages, const int32_t* slots, const void* rows) const;
  Status Reencode(int l, bool to_exact, int64_t pages, const int32_t* from, const int32_t* to);
  Status Prepare(const PageChanges& changes, size_t opened_from, size_t opened_to);
  Status SealLayer(int l);

  void AddLists(const StreamRange& range, ArrayPack* arrays);
  MappedPage PageNow(int s, int64_t page) const;
  std::vector<int32_t> SlotsOf(int s, int64_t first_page, int64_t pages, Kind kind, bool in_step) const;
  template <class T>
  const T* InStep(size_t ofs) const {
    return reinterpret_cast<const T*>(step_arrays.data() + ofs);
  }
};

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

// ---- Rows and pages

Status DeviceCache::Impl::DecodeRows(int l, int side, bool is_exact, int64_t pages, const int32_t* slots,
                                     void* rows) const {
  return layer(l).codec->DecodePages({.side = is_exact ? kExactSides[side] : kSides[side],
                                      .pages = static_cast<int32_t>(pages),
                                      .kv_heads = layer(l).kv_heads,
                                      .pool = is_exact ? ExactPool(l, side) : SealedPool(l, side),
                                      .slot_stride = is_exact ? exact_slots.bytes : sealed_slots.bytes,
                                      .slots = slots,
                                      .rows = rows},
                                     stream);
}

Status DeviceCache::Impl::EncodeRows(int l, int side, bool is_exact, int64_t pages, const int32_t* slots,
                                     const void* rows) const {
  return layer(l).codec->EncodePages({.side = is_exact ? kExactSides[side] : kSides[side],
                                      .pages = static_cast<int32_t>(pages),
                                      .kv_heads = layer(l).kv_heads,
                                      .rows = rows,
                                      .slots = slots,
                                      .pool = is_exact ? ExactPool(l, side) : SealedPool(l, side),
                                      .slot_stride = is_exact ? exact_slots.bytes : sealed_slots.bytes,
                                      .refused = refusal(kScale)},
                                     stream);
}

// Exact pages to sealed ones, or back, of K and V.
Status DeviceCache::Impl::Reencode(int l, bool to_exact, int64_t pages, const int32_t* from, const int32_t* to) {
  KVANT_TRY(row_scratch.Reserve(static_cast<size_t>(std::min(pages, kBatchPages) * kTokensPerPage) * row_values(l) *
                                sizeof(F16)));
  for (int64_t first = 0; first < pages; first += kBatchPages) {
    const int64_t count = std::min(kBatchPages, pages - first);
    for (int side = 0; side < 2; ++side) {
      KVANT_TRY(DecodeRows(l, side, !to_exact, count, from + first, row_scratch.data()));
      KVANT_TRY(EncodeRows(l, side, to_exact, count, to + first, row_scratch.data()));
    }
  }
  return Status::Ok();
}

// All that has to happen before rows are written, for all layers. Offsets are into step_arrays.
Status DeviceCache::Impl::Prepare(const PageChanges& changes, size_t opened_from, size_t opened_to) {
  const auto copy = [this](const DeviceRange& memory, const SlotLayout& slots, const SlotPair& pair) {
    return cudaMemcpyAsync(memory.data() + static_cast<size_t>(pair.to) * slots.bytes,
                           memory.data() + static_cast<size_t>(pair.from) * slots.bytes, slots.bytes,
                           cudaMemcpyDeviceToDevice, stream);
  };
  for (const SlotPair& pair : changes.copied_exact) KVANT_CUDA_TRY(copy(exact, exact_slots, pair));
  for (const SlotPair& pair : changes.copied_sealed) KVANT_CUDA_TRY(copy(sealed, sealed_slots, pair));
  for (const int32_t slot : changes.cleared) {
    KVANT_CUDA_TRY(
        cudaMemsetAsync(exact.data() + static_cast<size_t>(slot) * exact_slots.bytes, 0, exact_slots.bytes, stream));
  }
  if (changes.opened.empty()) return Status::Ok();
  for (int l = 0; l < num_layers(); ++l) {
    KVANT_TRY(Reencode(l, true, std::ssize(changes.opened), InStep<int32_t>(opened_from), InStep<int32_t>(opened_to)));
  }
  return Status::Ok();
}

Status DeviceCache::Impl::SealLayer(int l) {
  step.sealed[static_cast<size_t>(l)] = true;
  return Reencode(l, false, step.seals, step.seal_from, step.seal_to);
}

// As the step's kernels find it: what the step seals is still exact.
MappedPage DeviceCache::Impl::PageNow(int s, int64_t number) const {
  MappedPage page = map.pages(s)[static_cast<size_t>(number)];
  const auto it = step.still_exact.find({s, number});
  if (it != step.still_exact.end()) {
    page.kind = Kind::kExact;
    page.slot = it->second;
  }
  return page;
}

// Slots of pages first_page .. of one kind, -1 for the others.
std::vector<int32_t> DeviceCache::Impl::SlotsOf(int s, int64_t first_page, int64_t pages, Kind kind,
                                                bool in_step) const {
  std::vector<int32_t> slots(static_cast<size_t>(pages), -1);
  for (int64_t i = 0; i < pages && first_page + i < std::ssize(map.pages(s)); ++i) {
    const MappedPage page = in_step ? PageNow(s, first_page + i) : map.pages(s)[static_cast<size_t>(first_page + i)];
    if (page.kind == kind) slots[static_cast<size_t>(i)] = page.slot;
  }
  return slots;
}

// Lists have room for what the range can hold, so that their places stay while it fills.
void DeviceCache::Impl::AddLists(const StreamRange& range, ArrayPack* arrays) {
  std::vector<std::vector<DevicePage>> lists[2];  // [sealed, exact][stream]
  size_t most_exact = 1;
  for (int s = range.first; s < range.first + range.count; ++s) {
    for (auto& list : lists) list.emplace_back();
    const int64_t pages = std::min<int64_t>(std::ssize(map.pages(s)), PagesOf(range.cells));
    for (int64_t i = 0; i < pages; ++i) {
      const MappedPage page = PageNow(s, i);
      if (page.kind == Kind::kNone) continue;
      lists[page.kind == Kind::kExact].back().push_back({page.rows, page.slot, static_cast<int32_t>(i)});
    }
    most_exact = std::max(most_exact, lists[1].back().size());
  }
  const size_t room[2] = {static_cast<size_t>(PagesOf(range.cells)), AlignUp(most_exact, kExactPageRoom)};
  for (int kind = 0; kind < 2; ++kind) {
    std::vector<DevicePage> all;
    std::vector<int32_t> counts;
    for (std::vector<DevicePage>& list : lists[kind]) {
      counts.push_back(static_cast<int32_t>(list.size()));
      list.resize(room[kind]);
      all.insert(all.end(), list.begin(), list.end());
    }
    placed[kind] = {.pages_ofs = arrays->Add(all), .counts_ofs = arrays->Add(counts), .room = room[kind]};
  }
  step.listed_range = range;
}

namespace {

std::vector<int32_t> FromSlots(const std::vector<SlotPair>& pairs) {
  std::vector<int32_t> slots;
  for (const SlotPair& pair : pairs) slots.push_back(pair.from);
  return slots;
}
std::vector<int32_t> ToSlots(const std::vector<SlotPair>& pairs) {
  std::vector<int32_t> slots;
  for (const SlotPair& pair : pairs) slots.push_back(pair.to);
  return slots;
}

}  // namespace

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
                           .sealed_ready = true};
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

// ---- Shifts

Status DeviceCache::BeginShift(int stream) {
  Impl& m = *impl_;
  KVANT_TRY(m.MakeCurrent());
  const PageMap::WritePlan plan = m.map.PlanUnshare(stream);
  KVANT_TRY(m.Reserve(plan.exact_end, plan.sealed_end));
  m.step.has_decode_lists = false;
  m.step.listed_range = {.first = 0, .count = 0};
  return m.Prepare(m.map.CommitUnshare(stream), 0, 0);
}

Status DeviceCache::ReplaceKeys(int l, int stream, std::span<const uint8_t> changed, const void* keys) {
  Impl& m = *impl_;
  const auto pages = std::ssize(changed);
  ArrayPack arrays;
  size_t ofs[2];
  for (const Kind kind : {Kind::kSealed, Kind::kExact}) {
    std::vector<int32_t> slots = m.SlotsOf(stream, 0, pages, kind, false);
    for (size_t i = 0; i < slots.size(); ++i) {
      if (changed[i] == 0) slots[i] = -1;
    }
    ofs[kind == Kind::kExact] = arrays.Add(slots);
  }
  KVANT_TRY(m.uploader.Send(arrays.bytes(), &m.page_lists, m.stream));
  for (const bool is_exact : {false, true}) {
    const auto* slots = reinterpret_cast<const int32_t*>(m.page_lists.data() + ofs[is_exact]);
    KVANT_TRY(m.EncodeRows(l, 0, is_exact, pages, slots, keys));
  }
  return Status::Ok();
}

// ---- Bytes

Status DeviceCache::Read(int l, Side side, int stream, int64_t first, int64_t count, F16* rows) {
  Impl& m = *impl_;
  KVANT_TRY(m.MakeCurrent());
  const int which = side == Side::kKey ? 0 : 1;
  const size_t row_bytes = m.row_values(l) * sizeof(F16);
  const int64_t end = first + count;
  for (int64_t page = first / kTokensPerPage; page * kTokensPerPage < end; page += kBatchPages) {
    const int64_t start = page * kTokensPerPage;
    const int64_t pages = std::min(kBatchPages, (end - start + kTokensPerPage - 1) / kTokensPerPage);
    ArrayPack arrays;
    arrays.Add(m.SlotsOf(stream, page, pages, Kind::kSealed, false));
    const size_t exact_ofs = arrays.Add(m.SlotsOf(stream, page, pages, Kind::kExact, false));
    KVANT_TRY(m.uploader.Send(arrays.bytes(), &m.page_lists, m.stream));
    KVANT_TRY(m.row_scratch.Reserve(static_cast<size_t>(pages * kTokensPerPage) * row_bytes));
    for (const bool is_exact : {false, true}) {
      const auto* slots = reinterpret_cast<const int32_t*>(m.page_lists.data() + (is_exact ? exact_ofs : 0));
      KVANT_TRY(m.DecodeRows(l, which, is_exact, pages, slots, m.row_scratch.data()));
    }
    const int64_t from = std::max(first, start);
    const int64_t to = std::min(end, start + pages * kTokensPerPage);
    KVANT_CUDA_TRY(cudaMemcpyAsync(rows + static_cast<size_t>(from - first) * m.row_values(l),
                                   m.row_scratch.data() + static_cast<size_t>(from - start) * row_bytes,
                                   static_cast<size_t>(to - from) * row_bytes, cudaMemcpyDeviceToHost, m.stream));
    KVANT_CUDA_TRY(cudaStreamSynchronize(m.stream));
  }
  // What is not held is nothing, whatever stands in its place.
  for (int64_t row = first; row < end; ++row) {
    const int64_t page = row / kTokensPerPage;
    const bool held = page < std::ssize(m.map.pages(stream)) &&
                      (m.map.pages(stream)[static_cast<size_t>(page)].rows >> (row % kTokensPerPage) & 1) != 0;
    if (!held) std::fill_n(rows + static_cast<size_t>(row - first) * m.row_values(l), m.row_values(l), F16{});
  }
  return Status::Ok();
}

Status DeviceCache::Restore(int l, Side side, int stream, int64_t first, int64_t count, const F16* rows) {
  Impl& m = *impl_;
  KVANT_TRY(m.MakeCurrent());
  const int which = side == Side::kKey ? 0 : 1;
  const PageMap::RestorePlan plan = m.map.PlanRestore(stream, first, count);
  KVANT_TRY(m.Reserve(plan.exact_end, plan.sealed_end));
  std::vector<int32_t> sealed_slots;
  const PageChanges changes = m.map.Commit(plan, &sealed_slots);
  m.step.has_decode_lists = false;
  m.step.listed_range = {.first = 0, .count = 0};

  // Rows lie in the scratch as they do in their pages, the first page first.
  const int64_t first_page = first / kTokensPerPage;
  const int64_t pages = (first + count + kTokensPerPage - 1) / kTokensPerPage - first_page;
  std::vector<int32_t> slots(static_cast<size_t>(pages), -1);
  for (size_t i = 0; i < sealed_slots.size(); ++i) {
    slots[static_cast<size_t>(plan.sealed[i].page - first_page)] = sealed_slots[i];
  }
  std::vector<int32_t> targets(static_cast<size_t>(pages * kTokensPerPage), -1);
  size_t next = 0;
  for (const auto& page : plan.exact) {
    for (uint64_t bits = page.rows; bits != 0; bits &= bits - 1) {
      targets[static_cast<size_t>((page.page - first_page) * kTokensPerPage + std::countr_zero(bits))] =
          changes.targets[next++];
    }
  }
  ArrayPack arrays;
  const size_t slots_ofs = arrays.Add(slots);
  const size_t targets_ofs = arrays.Add(targets);
  const size_t opened_from = arrays.Add(FromSlots(changes.opened));
  const size_t opened_to = arrays.Add(ToSlots(changes.opened));
  KVANT_TRY(m.uploader.Send(arrays.bytes(), &m.step_arrays, m.stream));
  KVANT_TRY(m.Prepare(changes, opened_from, opened_to));

  const size_t row_bytes = m.row_values(l) * sizeof(F16);
  KVANT_TRY(m.row_scratch.Reserve(static_cast<size_t>(pages * kTokensPerPage) * row_bytes));
  KVANT_CUDA_TRY(cudaMemcpyAsync(m.row_scratch.data() + static_cast<size_t>(first % kTokensPerPage) * row_bytes, rows,
                                 static_cast<size_t>(count) * row_bytes, cudaMemcpyHostToDevice, m.stream));
  KVANT_TRY(m.EncodeRows(l, which, false, pages, m.InStep<int32_t>(slots_ofs), m.row_scratch.data()));
  const DeviceRows source = {.rows = m.row_scratch.data(),
                             .type = DeviceType::kF16,
                             .pool = m.ExactPool(l, which),
                             .slot_stride = m.exact_slots.bytes};
  KVANT_TRY(m.layer(l).codec->WriteRows({.keys = which == 0 ? source : DeviceRows{},
                                         .values = which == 1 ? source : DeviceRows{},
                                         .count = static_cast<int32_t>(targets.size()),
                                         .kv_heads = m.layer(l).kv_heads,
                                         .targets = m.InStep<int32_t>(targets_ofs),
                                         .refused = m.refusal(Impl::kRow)},
                                        m.stream));
  KVANT_CUDA_TRY(cudaStreamSynchronize(m.stream));
  return m.TakeRefusals();
}

void DeviceCache::Fork(int from, int to) { impl_->map.Fork(from, to); }
void DeviceCache::Truncate(int stream, int64_t rows) { impl_->map.Truncate(stream, rows); }

void DeviceCache::Clear() {
  Impl& m = *impl_;
  cudaSetDevice(m.config.device);
  for (int s = 0; s < m.config.pages.streams; ++s) m.map.Clear(s);
  m.step = {};
  m.step.written.assign(m.config.layers.size(), false);
  m.step.sealed.assign(m.config.layers.size(), true);
  cudaStreamSynchronize(m.stream);
  std::fill_n(m.refused, static_cast<int>(Impl::kNumRefusals), 0);
  m.Trim();
}

int64_t DeviceCache::num_rows(int stream) const { return impl_->map.num_rows(stream); }

Footprint DeviceCache::footprint() const {
  const Impl& m = *impl_;
  Footprint sum;
  sum.by_kind[static_cast<int>(StreamKind::kExact)] = static_cast<size_t>(m.map.exact().used()) * m.exact_slots.bytes;
  sum.rows = static_cast<size_t>(m.map.rows_held()) * 2 * m.config.layers.size();
  for (int l = 0; l < m.num_layers(); ++l) {
    sum.values += 2 * static_cast<size_t>(m.map.rows_held()) * m.row_values(l);
    for (const Codec* codec : {&m.layer(l).key, &m.layer(l).value}) {
      const std::vector<Stream>& streams = codec->state->layout.streams();
      for (size_t i = 0; i < streams.size(); ++i) {
        const size_t end = i + 1 < streams.size() ? streams[i + 1].byte_ofs : codec->block_bytes();
        sum.by_kind[static_cast<int>(streams[i].kind)] += static_cast<size_t>(m.map.sealed().used()) *
                                                          static_cast<size_t>(m.layer(l).kv_heads) *
                                                          (end - streams[i].byte_ofs);
      }
    }
  }
  return sum;
}

size_t DeviceCache::memory_bytes() const {
  const Impl& m = *impl_;
  size_t sum = m.exact.bytes() + m.sealed.bytes();
  for (const DeviceBuffer* buffer :
       {&m.step_arrays, &m.page_lists, &m.decode_lists, &m.tables, &m.workspace, &m.tickets, &m.row_scratch}) {
    sum += buffer->bytes();
  }
  return sum;
}

}  // namespace kvant
