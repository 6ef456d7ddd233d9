#include "results_option.h"

#include <cstdlib>

#include "verb.h"

namespace kvant {
namespace {

// Empty: neither variable is set. Relative paths count as not set, as the XDG specification asks.
std::string CacheFolder() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  if (xdg != nullptr && xdg[0] == '/') return xdg;
  const char* home = std::getenv("HOME");
  return home != nullptr && home[0] == '/' ? std::string(home) + "/.cache" : "";
}

}  // namespace

void AddResultsOptions(CLI::App& command, const char* group, ResultsOption& options) {
  command
      .add_option("--results", options.folder,
                  "Folder of earlier results: what it has is not measured again, what is measured is added. Without "
                  "it: kvant/results in the user's cache folder")
      ->type_name(kFileValue)
      ->group(group);
  command.add_flag("--no-cache", options.none, "Neither read nor keep results")->excludes("--results")->group(group);
}

Result<ResultCache> OpenResults(const ResultsOption& options) {
  if (options.none) return ResultCache();
  const std::string folder = options.folder.empty() ? CacheFolder() : options.folder;
  if (folder.empty()) {
    return Status::NotFound(
        "no folder for results: neither XDG_CACHE_HOME nor HOME is set; accepted: --results DIR, "
        "--no-cache");
  }
  Result<ResultCache> cache = ResultCache::Open(options.folder.empty() ? folder + "/kvant/results" : folder);
  if (cache.ok()) return cache;
  return Status(cache.status().code(), cache.status().message() + "; accepted: --results DIR, --no-cache");
}

}  // namespace kvant
