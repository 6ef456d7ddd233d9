// A small valid calibration, for tests and the fuzz target.
#pragma once

#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "base/check.h"
#include "calibrate/fit_entries.h"

namespace kvant {

/// Two layers, two heads of 64, `choice` for K and V; rows are noise. REQUIRES: the codec fits a basis per head.
inline std::shared_ptr<const Calibration> SampleCalibration(const CodecChoice& choice) {
  const std::vector<LayerShape> layers(2, {.kv_heads = 2, .k_dim = 64, .v_dim = 64});
  Collector collector({.layers = layers, .max_pages = 16});
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto noise = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
  };
  collector.Expect(4);
  collector.BeginBatch(0, 256);
  for (int layer = 0; layer < 2; ++layer) {
    for (const RowKind kind : {RowKind::kKey, RowKind::kValue, RowKind::kQuery, RowKind::kOutput}) {
      collector.Add(kind, layer, 256, 128, noise(256 * 128).data(), 128);
    }
  }
  collector.EndWindow();
  std::vector<CalibrationEntry> entries;
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (int layer = 0; layer < 2; ++layer) {
      Result<CalibrationEntry> entry = FitEntry({choice, side}, layers, layer, collector);
      KVANT_CHECK(entry.ok());
      entries.push_back(*std::move(entry));
    }
  }
  CalibrationOrigin origin = {.kvant_version = "0.1.0",
                              .model_hash = "0123456789abcdef0123456789abcdef",
                              .model_description = "a model \"of\" tests",
                              .layers = layers,
                              .texts = {{"a.txt", "aa"}, {"b \xC3\xA4.txt", "bb"}},
                              .tokens = 256,
                              .window = 256};
  return Calibration::Of("sample", std::move(origin), std::move(entries));
}

}  // namespace kvant
