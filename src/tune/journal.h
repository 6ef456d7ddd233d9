// What was measured, kept as it comes: a rerun goes on where the last one was stopped, however it was stopped.
//
// One line of JSON per measurement, appended and flushed to the disk. A line that a crash cut short is dropped when the
// journal is opened again. Lines of other models, texts or versions stay and do not disturb: the key tells them apart.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "kvant/status.h"

namespace kvant {

/// A cache on a text, against fp16.
struct Measurement {
  double kl = 0;
  double kl_stderr = 0;
  int64_t bytes = 0;  ///< that the cache held at the end
  double bits_per_value = 0;
};

/// One process at a time.
class Journal {
 public:
  /// Reads what is there; the file is made with the first measurement. An empty path: nothing is kept. Errors: IoError, and Corruption when
  /// the file is no journal.
  static Result<Journal> Open(const std::string& path);
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&&) = delete;
  ~Journal();

  std::optional<Measurement> Find(const std::string& key) const;
  /// Returns once it is on the disk. Errors: IoError; earlier lines are intact then.
  Status Add(const std::string& key, const Measurement& measurement);
  size_t size() const { return measurements_.size(); }

 private:
  Journal() = default;
  Status OpenFile();
  std::string path_;
  int descriptor_ = -1;     ///< once something was added
  size_t whole_bytes_ = 0;  ///< of the lines read
  std::map<std::string, Measurement> measurements_;
};

}  // namespace kvant
