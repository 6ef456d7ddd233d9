#include "cache/row_reader.h"

#include <algorithm>

#include "base/convert_f16.h"

namespace kvant {

Status RowReader::Read(const Team& team, const Sequence& sequence, int64_t first, int64_t count,
                       const RowTarget& target) {
  if (first < 0 || count < 0) {
    return Status::InvalidArgument(StrFormat("%s: rows from %lld, %lld of them; neither may be negative",
                                             format_->Where().c_str(), static_cast<long long>(first),
                                             static_cast<long long>(count)));
  }
  if (count == 0) return Status::Ok();
  team.Sync();
  if (team.leader()) status_.Reset();
  team.Sync();
  RowScratch scratch(*format_);
  if (!scratch.ok()) status_.Record(0, OutOfScratch(*format_));
  const int64_t first_page = PageOfRow(first);
  const int64_t num_pages = PageOfRow(first + count - 1) - first_page + 1;
  const int64_t heads = format_->kv_heads;
  const auto [begin, end] = team.Share(scratch.ok() ? static_cast<size_t>(num_pages * heads) : 0);
  for (int64_t item = static_cast<int64_t>(begin); item < static_cast<int64_t>(end); ++item) {
    status_.Record(item, ReadPage(sequence, first_page + item / heads, static_cast<int>(item % heads), first,
                                  first + count, target, scratch));
  }
  team.Sync();
  return status_.Get();
}

Status RowReader::ReadPage(const Sequence& sequence, int64_t page, int head, int64_t first, int64_t end,
                           const RowTarget& target, RowScratch& scratch) const {
  const Page* p = sequence.FindPage(page);
  if (p != nullptr && !p->open) KVANT_TRY(LoadRows(*format_, sequence, page, head, scratch));
  const size_t dim = static_cast<size_t>(format_->dim());
  const int64_t page_row = page * kTokensPerPage;
  for (int64_t row = std::max(first, page_row); row < std::min(end, page_row + kTokensPerPage); ++row) {
    F16* out = target.data + static_cast<size_t>(row - first) * target.row_stride + static_cast<size_t>(head) * dim;
    const size_t t = static_cast<size_t>(row - page_row);
    if (p == nullptr || (p->live >> t & 1) == 0) {
      std::fill_n(out, dim, F16{});
    } else if (p->open) {
      const std::byte* block = BlockOf(format_->open, p->open.data(), head);
      format_->open.info->load_row(format_->open.shape(), block, static_cast<int>(t), out);
    } else {
      FloatsToF16(scratch.rows() + t * dim, dim, out);
    }
  }
  return Status::Ok();
}

}  // namespace kvant
