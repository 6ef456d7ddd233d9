// Rows of one head in and out of the pages of a sequence, whatever state these are in.
#pragma once

#include <cstdint>

#include "base/aligned_buffer.h"
#include "cache/sequence.h"
#include "cache/store_format.h"
#include "kvant/status.h"

namespace kvant {

/// Working memory of one thread: two sets of rows [kTokensPerPage, dim].
class RowScratch {
 public:
  explicit RowScratch(const StoreFormat& format)
      : page_values_(format.page_values()), values_(2 * format.page_values()) {}

  bool ok() const { return values_.data() != nullptr; }
  float* rows() { return values_.data(); }
  float* other_rows() { return values_.data() + page_values_; }

 private:
  size_t page_values_;
  AlignedBuffer<float> values_;
};

/// The error of a thread whose scratch is not ok().
Status OutOfScratch(const StoreFormat& format);

/// Decodes `page` of `head` into scratch.rows(); rows that are not live get any finite value.
/// REQUIRES: the page is not empty. Errors: Corruption, from the codec.
Status LoadRows(const StoreFormat& format, const Sequence& sequence, int64_t page, int head, RowScratch& scratch);

/// Fills an open block with rows [kTokensPerPage, dim]; clamps to what fp16 holds, which a codec may
/// overshoot.
Status StoreRows(const StoreFormat& format, float* rows, std::byte* block);

/// The error of a row at a position that codecs cannot turn by.
Status PositionOutOfRange(const StoreFormat& format, int64_t row, int64_t position);

/// "layer 3 K, head 1, rows 64..127: " before the message.
Status AtPage(const StoreFormat& format, int64_t page, int head, const Status& status);

}  // namespace kvant
