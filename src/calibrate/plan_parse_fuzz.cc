// Whatever the bytes of a plan file are: Parse gives a plan that comes back the same from its own bytes, or one line that
// says why not.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "kvant/plan.h"

namespace kvant {
namespace {

/// A valid file, small enough to be changed usefully.
const std::string& Sample() {
  static const std::string bytes =
      R"({"format":"kvant-plan","format_version":1,"model_hash":"ab","layers":["k=int:4 v=raw","k=int:bits=2 v=kivi"],)"
      R"("sink":4,"recent":128,"measured":{"tokens":9,"kl":1e-3},"uniform":[{"cache":"kv4","kl":0.1}],)"
      R"("tuning":{"candidates":["raw"],"costs":[{"layer":1,"side":"v","candidate":0,"kl":1.5}]}})";
  return bytes;
}

void Check(const std::string& bytes) {
  const Result<Plan> plan = Plan::Parse(bytes, "fuzz");
  if (!plan.ok()) {
    KVANT_CHECK(plan.status().message().starts_with("fuzz: "));
    return;
  }
  const std::string text = plan->Serialize();
  const Result<Plan> again = Plan::Parse(text, "fuzz");
  KVANT_CHECK(again.ok() && again->Serialize() == text);
}

}  // namespace
}  // namespace kvant

// Either the input is a file, or it says what to change in a valid one: (position, value) pairs.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 1) {
    bytes = kvant::Sample();
    for (size_t i = 1; i + 3 <= size; i += 3) {
      bytes[(data[i] * 257u + data[i + 1]) % bytes.size()] = static_cast<char>(data[i + 2]);
    }
  }
  kvant::Check(bytes);
  return 0;
}
