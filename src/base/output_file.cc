#include "base/output_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace kvant {
namespace {

Status Failure(const std::filesystem::path& path, int error) {
  return Status::IoError(path.string() + ": cannot be written: " + std::strerror(error));
}

// Ctrl-C waits for the few milliseconds in which a temporary file exists.
class HoldSignals {
 public:
  HoldSignals() {
    sigset_t held;
    sigemptyset(&held);
    for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&held, signal);
    pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~HoldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// 0 or errno.
int WriteAll(int descriptor, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = write(descriptor, content.data(), content.size());
    if (n < 0 && errno != EINTR) return errno;
    if (n > 0) content.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

int WriteAndClose(int descriptor, std::string_view content) {
  const int error = WriteAll(descriptor, content);
  return close(descriptor) != 0 && error == 0 ? errno : error;
}

// A file beside `path`, or -1.
int MakeTemporary(const std::filesystem::path& path, std::string* name) {
  *name = path.string() + ".XXXXXX";
  const int descriptor = mkstemp(name->data());
  const mode_t mask = umask(0);
  umask(mask);
  if (descriptor >= 0) fchmod(descriptor, 0666 & ~mask);
  return descriptor;
}

}  // namespace

Result<OutputFile> OutputFile::Open(const std::string& given) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::weakly_canonical(given, error);
  if (error || given.empty()) return Failure(given, error ? error.value() : ENOENT);
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) return Failure(given, EISDIR);
  const bool replace = !std::filesystem::exists(status) || std::filesystem::is_regular_file(status);
  if (std::filesystem::exists(status) && access(path.c_str(), W_OK) != 0) return Failure(given, errno);
  if (replace) {
    const HoldSignals hold;
    std::string probe;
    const int descriptor = MakeTemporary(path, &probe);
    if (descriptor < 0) return Failure(given, errno);
    close(descriptor);
    unlink(probe.c_str());
  }
  return OutputFile(path, replace);
}

Status OutputFile::Write(std::string_view content) const {
  if (!replace_) {
    const int descriptor = open(path_.c_str(), O_WRONLY);
    if (descriptor < 0) return Failure(path_, errno);
    const int error = WriteAndClose(descriptor, content);
    return error ? Failure(path_, error) : Status::Ok();
  }
  const HoldSignals hold;
  std::string temporary;
  const int descriptor = MakeTemporary(path_, &temporary);
  if (descriptor < 0) return Failure(path_, errno);
  int error = WriteAndClose(descriptor, content);
  if (error == 0 && rename(temporary.c_str(), path_.c_str()) != 0) error = errno;
  if (error == 0) return Status::Ok();
  unlink(temporary.c_str());
  return Failure(path_, error);
}

}  // namespace kvant
