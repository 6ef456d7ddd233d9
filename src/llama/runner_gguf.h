// What a GGUF file says about its model, read without loading it.
#pragma once

#include <memory>
#include <string>

#include "gguf.h"
#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

struct FreeGguf {
  void operator()(gguf_context* file) const { gguf_free(file); }
};
using Gguf = std::unique_ptr<gguf_context, FreeGguf>;

/// Header of a complete file, without the tensors' data. Errors: NotFound, Corruption (not a GGUF, truncated).
Result<Gguf> OpenGguf(const std::string& path);

/// Everything in ModelInfo but `description` and `parameters`, which libllama knows. Errors: NotFound (no such file),
/// Corruption (not a GGUF, truncated, without a needed key).
Result<ModelInfo> ReadGguf(const std::string& path);

}  // namespace kvant
