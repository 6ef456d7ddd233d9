#include "cache/page_rows.h"

#include <algorithm>

#include "base/check.h"

namespace kvant {
namespace {

Status LoadSealed(const StoreFormat& format, const Page& page, int head, float* rows) {
  return format.sealed.verbs.decode(*format.sealed.state, ContextOf(format, *page.sealed, page, head),
                                    BlockOf(format.sealed, page.sealed->blocks.data(), head), rows);
}

}  // namespace

Status OutOfScratch(const StoreFormat& format) {
  return Status::OutOfMemory(format.Where() + ": the machine has no memory left");
}

Status LoadRows(const StoreFormat& format, const Sequence& sequence, int64_t page, int head, RowScratch& scratch) {
  const Page* p = sequence.FindPage(page);
  KVANT_DCHECK(p != nullptr);
  if (p->open) {
    return format.open.verbs.decode(*format.open.state, {}, BlockOf(format.open, p->open.data(), head), scratch.rows());
  }
  if (const Status status = LoadSealed(format, *p, head, scratch.rows()); !status.ok()) {
    return AtPage(format, page, head, status);
  }
  if (page != 0 || sequence.maybe_sinks() == nullptr) return Status::Ok();
  KVANT_TRY(format.sinks.verbs.decode(
      *format.sinks.state, {}, BlockOf(format.sinks, sequence.maybe_sinks()->data(), head), scratch.other_rows()));
  std::copy_n(scratch.other_rows(), format.sink_tokens * format.dim(), scratch.rows());
  return Status::Ok();
}

Status StoreRows(const StoreFormat& format, float* rows, std::byte* block) {
  for (size_t i = 0; i < format.page_values(); ++i) rows[i] = std::clamp(rows[i], -kF16Max, kF16Max);
  return format.open.verbs.encode(*format.open.state, {}, rows, block);
}

Status PositionOutOfRange(const StoreFormat& format, int64_t row, int64_t position) {
  return Status::InvalidArgument(StrFormat("%s, row %lld: position %lld; accepted: 0..%d", format.Where().c_str(),
                                           static_cast<long long>(row), static_cast<long long>(position),
                                           kMaxPositions - 1));
}

Status AtPage(const StoreFormat& format, int64_t page, int head, const Status& status) {
  const long long first_row = static_cast<long long>(page) * kTokensPerPage;
  return {status.code(), StrFormat("%s, head %d, rows %lld..%lld: %s", format.Where().c_str(), head, first_row,
                                   first_row + kTokensPerPage - 1, status.message().c_str())};
}

}  // namespace kvant
