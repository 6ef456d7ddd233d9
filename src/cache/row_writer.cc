#include "cache/row_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "base/convert_f16.h"
#include "cache/page_rows.h"

namespace kvant {
namespace {

// A batch up to this size (a token or two) is copied by the leader alone: cheaper than the barriers between
// phases.
constexpr size_t kAloneValues = 8192;

// Row numbers index a page table; this bound keeps a wrong number from becoming a table of gigabytes.
constexpr int64_t kMaxRows = int64_t{1} << 28;

const std::byte* RowStart(const RowSource& source, size_t i) {
  return static_cast<const std::byte*>(source.data) + i * source.row_stride_bytes;
}

// Magnitudes as integers: they order like the values, with infinities and NaN above all that fits.
int32_t Magnitude(float value) { return std::bit_cast<int32_t>(value) & 0x7FFFFFFF; }
int16_t Magnitude(F16 value) { return static_cast<int16_t>(value.bits & 0x7FFFu); }
/// The magnitude from which on a value is infinite, or rounds to it, in fp16.
int32_t Limit(float) { return std::bit_cast<int32_t>(65520.0f); }
int16_t Limit(F16) { return 0x7C00; }
float AsFloat(float value) { return value; }
float AsFloat(F16 value) { return ToFloat(value); }

/// Index of the first value that is not finite in fp16, if any.
template <typename T>
std::optional<size_t> FindBad(const T* values, size_t count) {
  auto largest = Magnitude(T{});
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, Magnitude(values[i]));
  if (largest < Limit(T{})) return std::nullopt;
  return static_cast<size_t>(std::find_if(values, values + count, [](T v) { return Magnitude(v) >= Limit(v); }) -
                             values);
}

template <typename T>
Status CheckValues(const StoreFormat& format, int64_t row, const T* values) {
  const std::optional<size_t> bad = FindBad(values, format.row_values());
  if (!bad) return Status::Ok();
  const double value = static_cast<double>(AsFloat(values[*bad]));
  const size_t dim = static_cast<size_t>(format.dim());
  return Status::InvalidArgument(
      StrFormat("%s, head %zu, row %lld: value %g in channel %zu %s", format.Where().c_str(), *bad / dim,
                static_cast<long long>(row), value, *bad % dim,
                std::isfinite(value) ? "does not fit fp16 (at most 65504)" : "is not finite"));
}

}  // namespace

Status RowWriter::Write(const Team& team, Sequence& sequence, std::span<const int64_t> rows, const RowSource& source,
                        std::span<const int32_t> positions) {
  const Batch batch = {sequence, rows, source, positions};
  const bool alone = rows.size() * format_->row_values() <= kAloneValues;
  team.Sync();
  if (team.leader()) status_.Reset();
  if (!alone) {
    team.Sync();
    WriteWith(team, batch);
  } else if (team.leader()) {
    WriteWith(Team(), batch);
  }
  team.Sync();
  return status_.Get();
}

void RowWriter::WriteWith(const Team& team, const Batch& batch) {
  CheckShare(team, batch);
  if (!status_.Agree(team)) return;
  if (team.leader()) status_.Record(0, Plan(batch));
  if (!status_.Agree(team)) return;
  if (opens_pages_) {
    OpenShare(team, batch);
    if (!status_.Agree(team)) {
      if (team.leader()) writes_.clear();
      return;
    }
  }
  CopyShare(team, batch);
  team.Sync();
  if (team.leader()) Commit(batch);
}

// ---- check

Status RowWriter::CheckRow(const Batch& batch, size_t i) const {
  const int64_t row = batch.rows[i];
  if (row < 0 || row >= kMaxRows) {
    return Status::InvalidArgument(StrFormat("%s: row %lld does not exist; accepted: 0..%lld", format_->Where().c_str(),
                                             static_cast<long long>(row), static_cast<long long>(kMaxRows - 1)));
  }
  if (const int64_t position = batch.position(i);
      format_->keeps_positions() && (position < 0 || position >= kMaxPositions)) {
    return PositionOutOfRange(*format_, row, position);
  }
  const std::byte* values = RowStart(batch.source, i);
  return batch.source.is_f16 ? CheckValues(*format_, row, reinterpret_cast<const F16*>(values))
                             : CheckValues(*format_, row, reinterpret_cast<const float*>(values));
}

void RowWriter::CheckShare(const Team& team, const Batch& batch) {
  const auto [first, last] = team.Share(batch.rows.size());
  for (size_t i = first; i < last; ++i) {
    Status status = CheckRow(batch, i);
    if (status.ok()) continue;
    status_.Record(static_cast<int64_t>(i), std::move(status));
    return;
  }
}

// ---- plan

Status RowWriter::Plan(const Batch& batch) {
  GroupByPage(batch);
  opens_pages_ = false;
  for (PageWrite& write : writes_) {
    const Page* page = batch.sequence.FindPage(write.page);
    if (page != nullptr && page->open) continue;
    if (!Reserve(batch, write)) {
      writes_.clear();
      return pool_->OutOfMemory(format_->Where());
    }
    opens_pages_ = true;
  }
  return Status::Ok();
}

bool RowWriter::Reserve(const Batch& batch, PageWrite& write) {
  write.slot = PoolSlot(pool_, format_->PageBytes(format_->open));
  if (!write.slot) return false;
  if (!format_->keeps_positions() || batch.sequence.FindPage(write.page) != nullptr) return true;
  write.positions = PoolSlot(pool_, format_->positions_bytes());
  if (!write.positions) return false;
  std::memset(write.positions.data(), 0, write.positions.bytes());
  return true;
}

void RowWriter::GroupByPage(const Batch& batch) {
  const auto page_of = [&](size_t i) { return PageOfRow(batch.rows[i]); };
  order_.resize(batch.rows.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  // Stable: of two values for one row the later one stays.
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return page_of(a) < page_of(b); });
  writes_.clear();
  for (size_t i = 0; i < order_.size(); ++i) {
    const int64_t row = batch.rows[order_[i]];
    if (writes_.empty() || writes_.back().page != PageOfRow(row)) writes_.push_back({PageOfRow(row), i, i, 0, {}, {}});
    writes_.back().last = i + 1;
    writes_.back().written |= uint64_t{1} << (row % kTokensPerPage);
  }
}

// ---- open pages: nothing of it is visible before Commit

void RowWriter::OpenShare(const Team& team, const Batch& batch) {
  const size_t heads = static_cast<size_t>(format_->kv_heads);
  const auto [first, last] = team.Share(writes_.size() * heads);
  for (size_t item = first; item < last; ++item) {
    PageWrite& write = writes_[item / heads];
    if (write.slot) status_.Record(static_cast<int64_t>(item), OpenBlock(batch, write, static_cast<int>(item % heads)));
  }
}

Status RowWriter::OpenBlock(const Batch& batch, PageWrite& write, int head) const {
  std::byte* block = BlockOf(format_->open, write.slot.data(), head);
  std::memset(block, 0, format_->open.block_bytes());
  const Page* page = batch.sequence.FindPage(write.page);
  if (page == nullptr || (page->live & ~write.written) == 0) return Status::Ok();
  RowScratch scratch(*format_);
  if (!scratch.ok()) return OutOfScratch(*format_);
  KVANT_TRY(LoadRows(*format_, batch.sequence, write.page, head, scratch));
  return StoreRows(*format_, scratch.rows(), block);
}

// ---- copy

void RowWriter::CopyShare(const Team& team, const Batch& batch) {
  // By page and head, so that two threads never write to the same cache line of a block.
  const size_t heads = static_cast<size_t>(format_->kv_heads);
  const auto [first, last] = team.Share(writes_.size() * heads);
  for (size_t item = first; item < last; ++item) {
    PageWrite& write = writes_[item / heads];
    const int head = static_cast<int>(item % heads);
    std::byte* page = write.slot ? write.slot.data() : batch.sequence.OpenBytes(write.page);
    CopyRows(batch, write, head, BlockOf(format_->open, page, head));
  }
}

void RowWriter::CopyRows(const Batch& batch, const PageWrite& write, int head, std::byte* block) const {
  const BlockShape& shape = format_->open.shape();
  const size_t dim = static_cast<size_t>(shape.dim);
  std::vector<F16> converted(dim);
  for (size_t i = write.first; i < write.last; ++i) {
    const int token = static_cast<int>(batch.rows[order_[i]] % kTokensPerPage);
    const std::byte* row = RowStart(batch.source, order_[i]);
    const size_t head_ofs = static_cast<size_t>(head) * dim;
    if (batch.source.is_f16) {
      format_->open.info->store_row(shape, block, token, reinterpret_cast<const F16*>(row) + head_ofs);
      continue;
    }
    const float* values = reinterpret_cast<const float*>(row) + head_ofs;
    FloatsToF16(values, dim, converted.data());
    format_->open.info->store_row(shape, block, token, converted.data());
  }
}

void RowWriter::Commit(const Batch& batch) {
  for (PageWrite& write : writes_) {
    batch.sequence.CommitWrite(write.page, std::move(write.slot), std::move(write.positions), write.written);
    int32_t* positions = format_->keeps_positions() ? batch.sequence.PositionsOf(write.page) : nullptr;
    for (size_t i = write.first; i < write.last; ++i) {
      const size_t from = order_[i];
      const TokenClass* classes = batch.source.maybe_classes;
      batch.sequence.SetClass(batch.rows[from], classes ? classes[from] : TokenClass::kOrdinary);
      if (positions) positions[batch.rows[from] % kTokensPerPage] = static_cast<int32_t>(batch.position(from));
    }
  }
  if (opens_pages_) batch.sequence.RebuildView();
  writes_.clear();
}

}  // namespace kvant
