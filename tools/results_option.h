// Where measured results are kept between runs: --results and --no-cache.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "eval/result_cache.h"

namespace kvant {

struct ResultsOption {
  std::string folder;
  bool none = false;
};

/// Adds --results, whose default is the folder `results` of kvant in the user's cache folder (XDG), and --no-cache, in this group of --help.
void AddResultsOptions(CLI::App& command, const char* group, ResultsOption& options);

/// The folder that was asked for, ready to be written; one that keeps nothing with --no-cache.
/// Errors: those of ResultCache::Open; NotFound when there is no home to have a default in.
Result<ResultCache> OpenResults(const ResultsOption& options);

}  // namespace kvant
