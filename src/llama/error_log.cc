#include "llama/error_log.h"

#include "ggml-impl.h"

namespace kvant {

void ErrorLog::Report(const Status& status) {
  {
    const std::lock_guard lock(mutex_);
    last_ = status;
  }
  GGML_LOG_ERROR("kvant: %s\n", status.message().c_str());
}

Status ErrorLog::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

void ErrorLog::Clear() {
  const std::lock_guard lock(mutex_);
  last_ = Status::Ok();
}

}  // namespace kvant
