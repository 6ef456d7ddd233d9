#include "calibration_option.h"

#include <algorithm>
#include <filesystem>

#include "codec/calibrated.h"
#include "kvant/plan.h"
#include "terminal.h"
#include "verb.h"

namespace kvant {
namespace {

constexpr const char* kNone = "none";

// What is no scheme is refused elsewhere.
bool CanUseBases(const std::string& cache) {
  const Result<Scheme> scheme = ReadScheme(cache);
  return scheme.ok() && UsesBases(*scheme);
}

}  // namespace

std::string CalibrationBeside(const std::string& model_path) {
  return std::filesystem::path(model_path).replace_extension(".kvant.safetensors").string();
}

void AddCalibrationOption(CLI::App& command, std::string& calibration) {
  command
      .add_option("--calibration", calibration,
                  "File of kvant calibrate; none: use none. Without it: MODEL with the ending .kvant.safetensors, if "
                  "there is such a file")
      ->type_name(kFileValue);
}

Result<std::shared_ptr<const Calibration>> OpenCalibration(const std::string& option, const std::string& model_path,
                                                           const std::vector<std::string>& caches) {
  const std::shared_ptr<const Calibration> none;
  if (option == kNone) return none;
  std::string path = option;
  if (path.empty()) {
    path = CalibrationBeside(model_path);
    if (std::ranges::none_of(caches, CanUseBases) || !std::filesystem::exists(path)) return none;
  }
  const Result<std::string> hash = Runner::HashModel(model_path);
  if (!hash.ok()) return hash.status();
  Result<std::shared_ptr<const Calibration>> calibration = Calibration::Load(path);
  if (calibration.ok()) KVANT_TRY((*calibration)->CheckModel(*hash));
  if (calibration.ok()) Log(LogLevel::kInfo, "calibration: " + path);
  return calibration;
}

}  // namespace kvant
