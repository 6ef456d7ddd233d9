// DeviceCache: between pages and rows.
#include "device_cache/device_cache_impl.cuh"

namespace kvant {
namespace {

// Lists of exact pages grow by so many at a time.
constexpr size_t kExactPageRoom = 8;

}  // namespace

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

}  // namespace kvant
