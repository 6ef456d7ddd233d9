// Is the host's ggml the one that we were built against?
//
// The plug-in fills in ggml's private structs, whose members move between releases without a version bump. So nothing
// but the exact source is safe.
#pragma once

#include <string_view>

#include "kvant/status.h"

namespace kvant {

/// A build of ggml, as it names itself: "0.25.3", "0c1e57098".
struct GgmlBuild {
  std::string_view version;
  std::string_view commit;
};

/// The one whose headers we were compiled with.
GgmlBuild BuiltAgainst();
/// The one that is loaded.
GgmlBuild LoadedGgml();

/// NotSupported, with both builds and what to do, unless they are the same.
Status CheckHost(const GgmlBuild& host, const GgmlBuild& ours);

}  // namespace kvant
