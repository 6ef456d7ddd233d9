#include "tune/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

Status Failure(const std::string& path) { return Status::IoError(path + ": " + std::strerror(errno)); }

std::string Line(const std::string& key, const Measurement& m) {
  const Json json = {
      {"key", key}, {"kl", m.kl}, {"kl_stderr", m.kl_stderr}, {"bytes", m.bytes}, {"bits_per_value", m.bits_per_value}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

bool ReadLine(std::string_view line, std::map<std::string, Measurement>* measurements) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("key") || !json["key"].is_string()) return false;
  for (const char* number : {"kl", "kl_stderr", "bytes", "bits_per_value"}) {
    if (!json.contains(number) || !json[number].is_number()) return false;
  }
  (*measurements)[json["key"].get<std::string>()] = {.kl = json["kl"].get<double>(),
                                                     .kl_stderr = json["kl_stderr"].get<double>(),
                                                     .bytes = json["bytes"].get<int64_t>(),
                                                     .bits_per_value = json["bits_per_value"].get<double>()};
  return true;
}

}  // namespace

Result<Journal> Journal::Open(const std::string& path) {
  Journal journal;
  journal.path_ = path;
  if (path.empty()) return journal;
  if (std::filesystem::exists(path) && !std::filesystem::is_regular_file(path)) {
    return Status::IoError(path + ": not a regular file; accepted: a file that kvant tune may append to");
  }
  if (!std::filesystem::exists(path)) return journal;
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || file.bad()) return Status::IoError(path + ": reading failed");
  size_t whole = 0;  // bytes of whole lines
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', whole)) {
    const std::string_view line(text.data() + whole, end - whole);
    if (!ReadLine(line, &journal.measurements_)) {
      return Status::Corruption(path + ": not a journal of kvant tune; accepted: its own files, or none");
    }
    whole = end + 1;
  }
  if (whole != text.size() && text.find('{', whole) != whole) {
    return Status::Corruption(path + ": not a journal of kvant tune; accepted: its own files, or none");
  }
  journal.whole_bytes_ = whole;
  return journal;
}

Status Journal::OpenFile() {
  descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) return Failure(path_);
  return ftruncate(descriptor_, static_cast<off_t>(whole_bytes_)) == 0 ? Status::Ok() : Failure(path_);
}

Journal::Journal(Journal&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      whole_bytes_(other.whole_bytes_),
      measurements_(std::move(other.measurements_)) {}

Journal::~Journal() {
  if (descriptor_ >= 0) close(descriptor_);
}

std::optional<Measurement> Journal::Find(const std::string& key) const {
  const auto found = measurements_.find(key);
  return found == measurements_.end() ? std::nullopt : std::optional(found->second);
}

Status Journal::Add(const std::string& key, const Measurement& measurement) {
  measurements_[key] = measurement;
  if (path_.empty()) return Status::Ok();
  if (descriptor_ < 0) KVANT_TRY(OpenFile());
  const off_t before = lseek(descriptor_, 0, SEEK_END);
  const std::string line = Line(key, measurement);
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = write(descriptor_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const Status status = Failure(path_);
      // A full disk: half a line must not stand before the next one.
      if (ftruncate(descriptor_, before) != 0) return Failure(path_);
      return status;
    }
    done += static_cast<size_t>(n);
  }
  return fdatasync(descriptor_) == 0 ? Status::Ok() : Failure(path_);
}

}  // namespace kvant
