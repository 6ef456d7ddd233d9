#include "page/block_layout.h"

namespace kvant {

std::string_view StreamKindName(StreamKind kind) {
  static constexpr std::string_view kNames[kNumStreamKinds] = {"codes", "scales", "means",    "outliers",
                                                               "bases", "exact",  "positions"};
  return kNames[static_cast<int>(kind)];
}

}  // namespace kvant
