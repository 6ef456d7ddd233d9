// What a measurement of a cache depends on, as the key that it is kept by.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "eval/environment.h"
#include "kvant/calibration.h"

namespace kvant {

struct ResultSubject {
  std::string kvant_version;
  Environment environment;
  std::string model_hash;
  std::string cache;  ///< as given: "kv4", "k=int:4 v=int:2", "llama:q8_0"
  int threads = 0;    ///< times depend on them, and the order in which numbers are summed
  const Calibration* maybe_calibration = nullptr;
};

/// Key of one part of what is measured, "text" or a task; `part_options` is all that only this part depends on. Schemes
/// stand in full, so a preset and its scheme are the same; a calibration counts by its contents, and only for codecs that
/// take bases from one.
nlohmann::json ResultKey(const ResultSubject& subject, std::string_view part, const nlohmann::json& part_options);

}  // namespace kvant
