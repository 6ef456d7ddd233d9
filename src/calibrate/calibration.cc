#include "kvant/calibration.h"

#include <algorithm>
#include <utility>

namespace kvant {

std::shared_ptr<const Calibration> Calibration::Of(std::string name, CalibrationOrigin origin,
                                                   std::vector<CalibrationEntry> entries) {
  const std::shared_ptr<Calibration> calibration(new Calibration());
  calibration->name_ = std::move(name);
  calibration->origin_ = std::move(origin);
  calibration->entries_ = std::move(entries);
  return calibration;
}

const CalibrationEntry* Calibration::Find(std::string_view codec, int layer, bool is_key) const {
  const auto entry = std::ranges::find_if(
      entries_, [&](const CalibrationEntry& e) { return e.layer == layer && e.is_key == is_key && e.codec == codec; });
  return entry == entries_.end() ? nullptr : &*entry;
}

Status Calibration::CheckModel(const std::string& model_hash) const {
  if (model_hash == origin_.model_hash) return Status::Ok();
  return Status::InvalidArgument(StrFormat("%s: made for another model (%s, hash %s); this one has the hash %s",
                                           name_.c_str(), origin_.model_description.c_str(), origin_.model_hash.c_str(),
                                           model_hash.c_str()));
}

}  // namespace kvant
