// Logits of the reference run, kept in an unnamed temporary file: 2,048 positions of a 150,000-token
// vocabulary are 1.2 GB, which should neither fill the memory nor count as the cache's.
#pragma once

#include <cstdint>
#include <span>

#include "kvant/status.h"

namespace kvant {

/// Rows of `vocab_size` floats, written once in order and read back any number of times. The file has no
/// name, so nothing stays behind however the process ends.
class LogitFile {
 public:
  static Result<LogitFile> Create(int vocab_size);
  LogitFile(LogitFile&& other) noexcept;
  LogitFile& operator=(LogitFile&&) = delete;
  ~LogitFile();

  Status Append(std::span<const float> logits);
  /// Copies row `i` to `logits` [vocab_size].
  Status Read(int64_t i, std::span<float> logits) const;
  int64_t num_rows() const { return num_rows_; }

 private:
  LogitFile(int descriptor, size_t row_bytes) : descriptor_(descriptor), row_bytes_(row_bytes) {}
  int descriptor_;
  size_t row_bytes_;
  int64_t num_rows_ = 0;
};

}  // namespace kvant
