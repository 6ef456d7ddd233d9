// What a GGUF file says about its model, read without loading it.
#pragma once

#include <string>

#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

/// Everything in ModelInfo but `description` and `parameters`, which libllama knows. Errors: NotFound (no such file),
/// Corruption (not a GGUF, truncated, without a needed key).
Result<ModelInfo> ReadGguf(const std::string& path);

}  // namespace kvant
