// Metadata of a model under its architecture's prefix.
#pragma once

#include <optional>
#include <string>

#include "gguf.h"
#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

/// Integers of the architecture's own keys: "llama.block_count". Refers to `file`.
class ModelKeys {
 public:
  ModelKeys(const gguf_context* file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  std::optional<int64_t> Find(const char* name) const;
  /// A value that may differ by layer: an array or one number for all.
  std::optional<int64_t> Find(const char* name, size_t layer) const;
  bool IsArray(const char* name) const;
  Status Missing(const char* name) const;

 private:
  const gguf_context* const file_;
  const std::string prefix_;
};

/// Fills in what the blocks of `info` remember, and the window: from keys of sliding windows, and from the names of the
/// blocks' tensors, which tell recurrent and latent ones in every architecture alike.
void ReadBlockMemory(const gguf_context* file, const ModelKeys& keys, ModelInfo* info);

}  // namespace kvant
