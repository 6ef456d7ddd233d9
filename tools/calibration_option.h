// The calibration that a verb uses: named with --calibration, or found beside the model.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "kvant/calibration.h"
#include "llama/runner.h"

namespace kvant {

/// Where `kvant calibrate` puts a model's calibration when not told, and where the other verbs look:
/// "model.gguf" -> "model.kvant.safetensors".
std::string CalibrationBeside(const std::string& model_path);

/// Adds --calibration.
void AddCalibrationOption(CLI::App& command, std::string& calibration);

/// `option` is a file, "none", or empty: then the file beside the model, when it exists and a codec of `caches` can use
/// one. Null: no calibration. Errors: those of Calibration::Load; InvalidArgument when it is of another model.
Result<std::shared_ptr<const Calibration>> OpenCalibration(const std::string& option, const std::string& model_path,
                                                           const std::vector<std::string>& caches);

}  // namespace kvant
