#include "calibration_option.h"

#include <algorithm>
#include <filesystem>

#include "codec/codec.h"
#include "kvant/plan.h"

namespace kvant {
namespace {

constexpr const char* kNone = "none";

// Any head size will do: whether a codec has a basis does not depend on it. What is no scheme is refused elsewhere.
bool HasBasis(const CodecChoice& choice, Side side) {
  const Result<Codec> codec = MakeCodec(choice.name, choice.options, {.side = side, .dim = 128});
  return codec.ok() && codec->state->basis_bytes > 0;
}

bool UsesBases(const std::string& cache) {
  const Result<Scheme> scheme = ReadScheme(cache);
  if (!scheme.ok()) return false;
  const auto has_basis = [&](Side side) {
    return std::ranges::any_of(scheme->Choices(side == Side::kKey), [&](const auto& c) { return HasBasis(c, side); });
  };
  return has_basis(Side::kKey) || has_basis(Side::kValue);
}

}  // namespace

std::string CalibrationBeside(const std::string& model_path) {
  return std::filesystem::path(model_path).replace_extension(".kvant.safetensors").string();
}

void AddCalibrationOption(CLI::App& command, std::string& calibration) {
  command.add_option(
      "--calibration", calibration,
      "File of kvant calibrate; none: use none. Without it: MODEL with the ending .kvant.safetensors, if "
      "there is such a file");
}

Result<std::shared_ptr<const Calibration>> OpenCalibration(const std::string& option, const std::string& model_path,
                                                           const std::vector<std::string>& caches) {
  const std::shared_ptr<const Calibration> none;
  if (option == kNone) return none;
  std::string path = option;
  if (path.empty()) {
    path = CalibrationBeside(model_path);
    if (std::ranges::none_of(caches, UsesBases) || !std::filesystem::exists(path)) return none;
  }
  const Result<std::string> hash = Runner::HashModel(model_path);
  if (!hash.ok()) return hash.status();
  Result<std::shared_ptr<const Calibration>> calibration = Calibration::Load(path);
  if (calibration.ok()) KVANT_TRY((*calibration)->CheckModel(*hash));
  return calibration;
}

}  // namespace kvant
