#include "eval/result_key.h"

#include "codec/calibrated.h"
#include "eval/task.h"
#include "kvant/plan.h"

namespace kvant {

nlohmann::json ResultKey(const ResultSubject& subject, std::string_view part, const nlohmann::json& part_options) {
  const Result<Scheme> scheme = ReadScheme(subject.cache);
  const bool calibrated = subject.maybe_calibration != nullptr && scheme.ok() && UsesBases(*scheme);
  return {{"kvant_version", subject.kvant_version},
          {"program", subject.environment.program},
          {"cpu", subject.environment.cpu},
          {"device", subject.environment.device},
          {"threads", subject.threads},
          {"model", subject.model_hash},
          {"cache", scheme.ok() ? scheme->ToString() : subject.cache},
          {"calibration", calibrated ? HashText(subject.maybe_calibration->Serialize()) : ""},
          {"part", part},
          {"options", part_options}};
}

}  // namespace kvant
