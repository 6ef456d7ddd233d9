// How libllama's graph turns keys (RoPE), as read from its ROPE nodes.
#pragma once

#include "ggml.h"
#include "kvant/shape.h"
#include "kvant/status.h"

namespace kvant {

/// The ROPE node whose result, whole and unchanged, is what `rows` holds; null: there is none.
const ggml_tensor* FindRope(const ggml_tensor& rows);

/// Errors: NotSupported with half a sentence that goes on after "but": no ROPE node (null), or one of a kind that is
/// not known.
Result<RopeShape> ParseRope(const ggml_tensor* maybe_rope);

}  // namespace kvant
