// From statistics to the entries of a calibration.
#pragma once

#include <string>
#include <vector>

#include "calibrate/collector.h"
#include "kvant/calibration.h"
#include "kvant/scheme.h"

namespace kvant {

/// A codec to be calibrated for one side of all layers.
struct CalibrationTarget {
  CodecChoice choice;
  Side side = Side::kKey;
};

/// What a target's codec is in one layer. Errors: those of MakeCodec; NotFound when it has no basis.
Result<Codec> CodecOfLayer(const CalibrationTarget& target, const std::vector<LayerShape>& layers, int layer);

/// Fits the bases of one layer. Errors: those of Collector and of the codec's fit_basis, naming layer and codec.
Result<CalibrationEntry> FitEntry(const CalibrationTarget& target, const std::vector<LayerShape>& layers, int layer,
                                  const Collector& collector);

}  // namespace kvant
