// kvant bench model: its options and what it does. A verb of kvant bench, see cmd_bench.cc.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "kvant/status.h"

namespace kvant {

/// Adds `model` with its options to `bench`. The function runs it, once they are parsed.
std::function<Status()> AddBenchModel(CLI::App& bench);

}  // namespace kvant
