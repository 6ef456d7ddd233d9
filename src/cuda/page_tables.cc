#include "cuda/page_tables.h"

#include <limits>

#include "kvant/device_codec.h"

namespace kvant {
namespace {

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

Status CheckList(const std::string& name, const DevicePageList& list) {
  if (list.max_pages < 0) return Status::InvalidArgument(name + StrFormat(".max_pages = %d", list.max_pages));
  if (list.max_pages == 0) return Status::Ok();
  if (!list.pages || !list.counts || !list.table || !list.table_counts) {
    return Status::InvalidArgument(name + StrFormat(": a null pointer with max_pages = %d", list.max_pages));
  }
  if (IsAligned(list.pages) && IsAligned(list.table)) return Status::Ok();
  return Status::InvalidArgument(name + ".pages or table is not aligned to 16 bytes");
}

Status CheckTableArgs(const DeviceTableArgs& args) {
  const int64_t rows = static_cast<int64_t>(args.streams) * args.rows;
  if (args.streams < 1 || args.rows < 1 || rows > std::numeric_limits<int32_t>::max()) {
    return Status::InvalidArgument(
        StrFormat("streams = %d, rows = %d; accepted: from 1, together below 2^31", args.streams, args.rows));
  }
  if (args.cells < 0) return Status::InvalidArgument(StrFormat("cells = %d; accepted: from 0", args.cells));
  if (!IsAligned(args.maybe_mask) || args.mask_row_stride % 16 != 0 || args.mask_stream_stride % 16 != 0) {
    return Status::InvalidArgument("mask, mask_row_stride or mask_stream_stride is not a multiple of 16 bytes");
  }
  KVANT_TRY(CheckList("sealed", args.sealed));
  return CheckList("exact", args.exact);
}

}  // namespace

Status BuildPageTables(const DeviceTableArgs& args, void* stream) {
  KVANT_TRY(CheckTableArgs(args));
  cuda::TableParams p = {.list = {},
                         .lists = 0,
                         .streams = args.streams,
                         .rows = args.rows,
                         .cells = args.cells,
                         .maybe_mask = static_cast<const std::byte*>(args.maybe_mask),
                         .mask_row_stride = static_cast<int64_t>(args.mask_row_stride),
                         .mask_stream_stride = static_cast<int64_t>(args.mask_stream_stride)};
  for (const DevicePageList& list : {args.sealed, args.exact}) {
    if (list.max_pages == 0) continue;
    p.list[p.lists++] = {.pages = static_cast<const cuda::PageRef*>(list.pages),
                         .counts = list.counts,
                         .max_pages = list.max_pages,
                         .table = static_cast<cuda::PageRef*>(list.table),
                         .table_counts = list.table_counts};
  }
  return p.lists > 0 ? cuda::LaunchPageTables(p, stream) : Status::Ok();
}

}  // namespace kvant
