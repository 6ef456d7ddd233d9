// DeviceCache: context shift, rows to and from host memory, reports.
#include <bit>

#include "device_cache/device_cache_impl.cuh"

namespace kvant {

// ---- Shifts

Status DeviceCache::BeginShift(int stream) {
  Impl& m = *impl_;
  KVANT_TRY(m.MakeCurrent());
  KVANT_TRY(SealAll());
  const PageMap::WritePlan plan = m.map.PlanUnshare(stream);
  KVANT_TRY(m.Reserve(plan.exact_end, plan.sealed_end));
  m.ForgetStep();
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
  KVANT_TRY(SealAll());
  const int which = side == Side::kKey ? 0 : 1;
  const PageMap::RestorePlan plan = m.map.PlanRestore(stream, first, count);
  KVANT_TRY(m.Reserve(plan.exact_end, plan.sealed_end));
  std::vector<int32_t> sealed_slots;
  const PageChanges changes = m.map.Commit(plan, &sealed_slots);
  m.ForgetStep();

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
