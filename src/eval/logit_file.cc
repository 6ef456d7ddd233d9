#include "eval/logit_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/check.h"

namespace kvant {
namespace {

Status Failure(const char* what) {
  return Status::IoError(StrFormat("temporary file for logits: %s failed: %s", what, std::strerror(errno)));
}

// Calls pread or pwrite until all bytes are done.
template <typename Call>
Status Transfer(const char* what, Call call, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = call(done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Failure(what);
    done += static_cast<size_t>(n);
  }
  return Status::Ok();
}

}  // namespace

Result<LogitFile> LogitFile::Create(int vocab_size) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (error) return Status::IoError("temporary folder (TMPDIR): " + error.message());
  std::string name = (folder / "kvant-logits-XXXXXX").string();
  const int descriptor = mkstemp(name.data());
  if (descriptor < 0) return Failure(name.c_str());
  unlink(name.c_str());
  return LogitFile(descriptor, static_cast<size_t>(vocab_size) * sizeof(float));
}

LogitFile::LogitFile(LogitFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), row_bytes_(other.row_bytes_), num_rows_(other.num_rows_) {}

LogitFile::~LogitFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

Status LogitFile::Append(std::span<const float> logits) {
  KVANT_CHECK(logits.size_bytes() == row_bytes_);
  const auto* bytes = reinterpret_cast<const char*>(logits.data());
  const off_t start = static_cast<off_t>(num_rows_) * static_cast<off_t>(row_bytes_);
  KVANT_TRY(Transfer(
      "write",
      [&](size_t done) {
        return pwrite(descriptor_, bytes + done, row_bytes_ - done, start + static_cast<off_t>(done));
      },
      row_bytes_));
  ++num_rows_;
  return Status::Ok();
}

Status LogitFile::Read(int64_t i, std::span<float> logits) const {
  KVANT_CHECK(i >= 0 && i < num_rows_ && logits.size_bytes() == row_bytes_);
  auto* bytes = reinterpret_cast<char*>(logits.data());
  const off_t start = static_cast<off_t>(i) * static_cast<off_t>(row_bytes_);
  return Transfer(
      "read",
      [&](size_t done) {
        return pread(descriptor_, bytes + done, row_bytes_ - done, start + static_cast<off_t>(done));
      },
      row_bytes_);
}

}  // namespace kvant
