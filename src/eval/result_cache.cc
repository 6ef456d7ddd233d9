#include "eval/result_cache.h"

#include <fstream>

#include "base/hash.h"
#include "base/output_file.h"

namespace kvant {

using Json = nlohmann::json;  // its objects are sorted by key, so equal keys have one text

Result<ResultCache> ResultCache::Open(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return Status::IoError("results folder " + folder + ": cannot be made: " + error.message());
  ResultCache cache{std::filesystem::path(folder)};
  const Result<OutputFile> probe = OutputFile::Open(cache.PathOf(Json()).string());
  if (!probe.ok()) return Status::IoError("results folder " + folder + ": " + probe.status().message());
  return cache;
}

std::filesystem::path ResultCache::PathOf(const Json& key) const {
  const std::string text = key.dump(-1, ' ', false, Json::error_handler_t::replace);
  Hash hash;
  hash.Add(text.data(), text.size());
  return folder_ / (hash.Hex() + ".json");
}

std::optional<Json> ResultCache::Find(const Json& key) const {
  if (folder_.empty()) return std::nullopt;
  std::ifstream file(PathOf(key));
  if (!file) return std::nullopt;
  Json entry = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!entry.is_object() || !entry.contains("value") || entry.value("key", Json()) != key) return std::nullopt;
  return std::move(entry["value"]);
}

Status ResultCache::Store(const Json& key, const Json& value) const {
  if (folder_.empty()) return Status::Ok();
  const Result<OutputFile> file = OutputFile::Open(PathOf(key).string());
  if (!file.ok()) return file.status();
  const Json entry = {{"key", key}, {"value", value}};
  return file->Write(entry.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace kvant
