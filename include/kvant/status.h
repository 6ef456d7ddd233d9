// Status and Result<T>: how the library reports errors. It never prints, exits or throws on input.
#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <utility>

namespace kvant {

/// What went wrong, by cause. The values are stable.
enum class StatusCode {
  kOk = 0,
  kInvalidArgument = 1,  ///< the caller's value is not accepted; the message names it and what is
  kNotSupported = 2,     ///< valid, but this build, model or codec cannot do it
  kNotFound = 3,         ///< file, layer or sequence does not exist
  kCorruption = 4,       ///< bytes that do not decode: block, page, snapshot, calibration
  kOutOfMemory = 5,      ///< the memory limit of the cache or of the machine was reached
  kIoError = 6,          ///< reading or writing a file failed
  kInternal = 7,         ///< a bug of ours
};

/// Result of an operation without a value. Cheap to copy when ok.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return {}; }
  static Status InvalidArgument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
  static Status NotSupported(std::string m) { return {StatusCode::kNotSupported, std::move(m)}; }
  static Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
  static Status Corruption(std::string m) { return {StatusCode::kCorruption, std::move(m)}; }
  static Status OutOfMemory(std::string m) { return {StatusCode::kOutOfMemory, std::move(m)}; }
  static Status IoError(std::string m) { return {StatusCode::kIoError, std::move(m)}; }
  static Status Internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  /// One line for a person: names the thing, its value and what is accepted.
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

/// A value or the Status that explains why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  /// REQUIRES: !status.ok()
  Result(Status status) : status_(std::move(status)) {}

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  /// REQUIRES: ok()
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return *std::move(value_); }
  T& operator*() & { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  const T& operator*() const& { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

/// Formats a message in the manner of printf.
template <typename... Args>
std::string StrFormat(const char* format, Args... args) {
  const int length = std::snprintf(nullptr, 0, format, args...);
  std::string text(static_cast<size_t>(length), '\0');
  std::snprintf(text.data(), text.size() + 1, format, args...);
  return text;
}
inline std::string StrFormat(const char* text) { return text; }

}  // namespace kvant

/// Returns from the enclosing function when `expr` is not ok.
#define KVANT_TRY(expr)                                                                    \
  do {                                                                                     \
    if (::kvant::Status kvant_status_ = (expr); !kvant_status_.ok()) return kvant_status_; \
  } while (0)
