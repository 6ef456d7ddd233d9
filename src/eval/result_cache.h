// Results that were measured before, one file each, so that a run that is repeated or was interrupted adds only what is missing.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "kvant/status.h"

namespace kvant {

/// A folder of files DIR/<hash of the key>.json, each {"key": ..., "value": ...}. A key is everything that the value depends
/// on (docs/evaluation.md lists it); equal keys are the same thing measured. Files appear whole or not at all, so killing a
/// process at any time loses only what it was measuring, and several processes may share a folder. Nothing is ever deleted.
class ResultCache {
 public:
  /// Makes the folder and finds out whether it can be written. Errors: IoError naming it.
  static Result<ResultCache> Open(const std::string& folder);
  /// Holds nothing and keeps nothing.
  ResultCache() = default;

  /// What was stored under this key. A file that is damaged or has another key counts as missing, and the next Store of this
  /// key replaces it.
  std::optional<nlohmann::json> Find(const nlohmann::json& key) const;
  /// Errors: IoError naming the file (disk full, ...).
  Status Store(const nlohmann::json& key, const nlohmann::json& value) const;

  const std::filesystem::path& folder() const { return folder_; }  ///< empty: keeps nothing

 private:
  explicit ResultCache(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path PathOf(const nlohmann::json& key) const;
  std::filesystem::path folder_;
};

}  // namespace kvant
