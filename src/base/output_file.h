// A result file that appears whole or not at all.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "kvant/status.h"

namespace kvant {

/// Open() finds out before the work whether the file can be written; Write() writes a temporary file beside
/// it and renames that. Until then the target is as it was. A target that is no regular file (/dev/stdout) is
/// written as is.
class OutputFile {
 public:
  /// Errors: IoError naming the path (no such folder, no permission, a folder).
  static Result<OutputFile> Open(const std::string& path);
  Status Write(std::string_view content) const;

 private:
  OutputFile(std::filesystem::path path, bool replace) : path_(std::move(path)), replace_(replace) {}
  std::filesystem::path path_;  ///< symbolic links resolved
  bool replace_;                ///< a regular file, or none yet
};

}  // namespace kvant
