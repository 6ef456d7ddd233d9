// Any text gives a scheme whose canonical text parses to the same scheme, or one line that says why not.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "kvant/scheme.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const kvant::Result<kvant::Scheme> scheme =
      kvant::Scheme::Parse(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!scheme.ok()) {
    KVANT_CHECK(!scheme.status().message().empty());
    return 0;
  }
  const std::string text = scheme->ToString();
  const kvant::Result<kvant::Scheme> again = kvant::Scheme::Parse(text);
  KVANT_CHECK(again.ok() && again->ToString() == text);
  return 0;
}
