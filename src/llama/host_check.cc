#include "llama/host_check.h"

#include <string>

#include "ggml.h"

namespace kvant {

GgmlBuild BuiltAgainst() { return {KVANT_GGML_VERSION, KVANT_GGML_COMMIT}; }

GgmlBuild LoadedGgml() { return {ggml_version(), ggml_commit()}; }

Status CheckHost(const GgmlBuild& host, const GgmlBuild& ours) {
  // A source tree without git history names no commit; then nothing says that the private structs are the same.
  const bool known = host.commit != "unknown" && !host.commit.empty();
  if (known && host.version == ours.version && host.commit == ours.commit) return Status::Ok();
  const auto name = [](const GgmlBuild& b) { return std::string(b.version) + " (" + std::string(b.commit) + ")"; };
  return Status::NotSupported("the host uses ggml " + name(host) + ", this plug-in is built for ggml " + name(ours) +
                              "; build it against the host's llama.cpp source "
                              "(-DKVANT_LLAMA_SOURCE_DIR=...)");
}

}  // namespace kvant
