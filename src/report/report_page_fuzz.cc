// Whatever the bytes of a file are: it becomes a page without foreign markup, or one line says why not.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "report/report_page.h"

namespace kvant {
namespace {

/// Valid files, small enough to be changed usefully.
constexpr const char* kSamples[] = {
    R"({"format":"kvant-eval","format_version":2,"model":"m","needles":4,"skip":9,"rows":[{"cache":"a","scheme":"s","kl":0.01,)"
    R"("kl_low":0.001,"kl_high":0.02,"top1":0.9,"memory":{"bits_per_value":4.5,"bits_by_kind":{"codes":4,"exact":0.5}},)"
    R"("kl_by_position":{"window":64,"kl":[0.1,0.2]},"attention_error_by_layer":[0.1,0.2],"tasks":{"needle_grid":)"
    R"({"lengths":[100],"depths":[0,1],"right":[[1,0]],"asked":[[2,0]]},"questions":{"right":1,"asked":2}},)"
    R"("measured":{"decode_ms":2,"speed_by_context":[{"tokens":10,"decode_ms":1}]}},{"cache":"b","kl":1e-3,)"
    R"("memory":{"bits_per_value":8}}]})",
    R"({"format":"kvant-plan","format_version":1,"layers":["k=int:4 v=raw","k=int:bits=2 v=kivi"],"measured":{"kl":1e-3,)"
    R"("bits_per_value":3},"uniform":[{"cache":"kv4","kl":0.1,"bits_per_value":4}],"tuning":{"candidates":["raw"],)"
    R"("costs":[{"layer":1,"side":"v","candidate":0,"bits_per_value":16}],"validation":[{"predicted_kl":1,"measured_kl":2}]}})"};

void Check(const std::string& bytes) {
  const Result<ReportInput> input = ParseReportInput(bytes, "fuzz");
  if (!input.ok()) {
    KVANT_CHECK(input.status().message().starts_with("fuzz: "));
    return;
  }
  const std::string page = ReportPage({*input}, "1");
  KVANT_CHECK(page == ReportPage({*input}, "1"));
  KVANT_CHECK(page.find("<script", page.find("<script") + 1) == std::string::npos);
}

}  // namespace
}  // namespace kvant

// Either the input is a file, or it says what to change in a valid one: (position, value) pairs.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 != 0) {
    bytes = kvant::kSamples[data[0] % 3 - 1];
    for (size_t i = 1; i + 3 <= size; i += 3) {
      bytes[(data[i] * 257u + data[i + 1]) % bytes.size()] = static_cast<char>(data[i + 2]);
    }
  }
  kvant::Check(bytes);
  return 0;
}
