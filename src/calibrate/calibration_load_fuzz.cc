// Whatever the bytes of a calibration file are: Parse gives a calibration whose entries its codecs accept, or an error.
#include <algorithm>
#include <cstring>

#include "calibrate/calibration_sample.h"

namespace kvant {
namespace {

const CodecChoice kChoice = {.name = "decoquant", .options = {{"bits", "2"}, {"gauge", "klt"}, {"metric", "model"}}};

/// A valid file, small enough to be changed usefully.
const std::string& Sample() {
  static const std::string bytes = SampleCalibration(kChoice)->Serialize();
  return bytes;
}

void Check(const std::string& bytes) {
  const auto parsed = Calibration::Parse(bytes, "fuzz");
  if (!parsed.ok()) return;
  for (const CalibrationEntry& entry : (*parsed)->entries()) {
    KVANT_CHECK((*parsed)->Find(entry.codec, entry.layer, entry.is_key) != nullptr);
    KVANT_CHECK(entry.num_bases > 0 && !entry.bytes.empty());
  }
  // What was accepted is accepted again, and stays.
  const auto again = Calibration::Parse((*parsed)->Serialize(), "fuzz");
  KVANT_CHECK(again.ok());
  KVANT_CHECK((*again)->entries().size() == (*parsed)->entries().size());
}

}  // namespace
}  // namespace kvant

// Either the input is a file, or it says what to change in a valid one: (position, value) pairs and a length to cut.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 1) {
    bytes = kvant::Sample();
    for (size_t i = 1; i + 3 <= size; i += 3) {
      // The header, where most decisions are, gets every other change.
      const size_t reach = data[i] % 2 == 0 ? std::min<size_t>(bytes.size(), 2048) : bytes.size();
      bytes[(data[i] / 2 * 257u + data[i + 1] * 31u) % reach] = static_cast<char>(data[i + 2]);
    }
  }
  kvant::Check(bytes);
  return 0;
}
