#include "llama/kv_rope.h"

#include <cmath>
#include <cstring>

namespace kvant {
namespace {

// Fields of a ROPE node's op_params.
enum Param { kDims = 1, kMode = 2, kContext = 4, kBase = 5, kScale, kExtFactor, kAttnFactor, kBetaFast, kBetaSlow };
constexpr int kOffsetParam = 15;

float FloatParam(const ggml_tensor& node, int index) { return reinterpret_cast<const float*>(node.op_params)[index]; }

bool IsReshape(ggml_op op) { return op == GGML_OP_VIEW || op == GGML_OP_RESHAPE; }

// YaRN (Peng et al., arXiv:2309.00071): pairs that turn fast keep their frequency, slow ones are scaled, those between
// are a mixture. `extrapolated`: share of the unscaled frequency.
double Extrapolated(const ggml_tensor& rope, int pair) {
  const double ext_factor = static_cast<double>(FloatParam(rope, kExtFactor));
  if (ext_factor == 0.0) return 0.0;
  float bounds[2];
  ggml_rope_yarn_corr_dims(rope.op_params[kDims], rope.op_params[kContext], FloatParam(rope, kBase),
                           FloatParam(rope, kBetaFast), FloatParam(rope, kBetaSlow), bounds);
  const double low = static_cast<double>(bounds[0]), high = static_cast<double>(bounds[1]);
  const double slope = (pair - low) / std::max(0.001, high - low);
  return (1.0 - std::min(1.0, std::max(0.0, slope))) * ext_factor;
}

}  // namespace

const ggml_tensor* FindRope(const ggml_tensor& rows) {
  const ggml_tensor* node = &rows;
  while (IsReshape(node->op) && node->src[0] != nullptr) node = node->src[0];
  const bool whole = ggml_nelements(node) == ggml_nelements(&rows) && rows.view_offs == node->view_offs;
  return node->op == GGML_OP_ROPE && whole ? node : nullptr;
}

Result<RopeShape> ParseRope(const ggml_tensor* maybe_rope) {
  if (maybe_rope == nullptr) return Status::NotSupported("the model does not turn them (RoPE) just before the cache");
  const ggml_tensor& rope = *maybe_rope;
  const int mode = rope.op_params[kMode];
  if (mode != GGML_ROPE_TYPE_NORMAL && mode != GGML_ROPE_TYPE_NEOX) {
    return Status::NotSupported(
        StrFormat("the model turns them by a kind of RoPE that is not supported (%d; supported: 0, interleaved pairs, "
                  "and 2, split "
                  "halves)",
                  mode));
  }
  if (rope.op_params[kOffsetParam] != 0) {
    return Status::NotSupported(StrFormat("the model turns channels from %d on only", rope.op_params[kOffsetParam]));
  }
  const ggml_tensor* factors = rope.src[2];
  if (factors != nullptr && factors->data == nullptr) {
    return Status::NotSupported("the frequency factors of its RoPE are not loaded");
  }
  RopeShape shape = {.frequencies = {}, .interleaved = mode == GGML_ROPE_TYPE_NORMAL};
  const int dims = rope.op_params[kDims];
  const double scale = static_cast<double>(FloatParam(rope, kScale));
  for (int j = 0; j < dims / 2; ++j) {
    const double factor = factors ? static_cast<double>(static_cast<const float*>(factors->data)[j]) : 1.0;
    const double frequency = std::pow(static_cast<double>(FloatParam(rope, kBase)), -2.0 * j / dims) / factor;
    const double extrapolated = Extrapolated(rope, j);
    shape.frequencies.push_back(frequency * (scale * (1.0 - extrapolated) + extrapolated));
  }
  const double gain = FloatParam(rope, kExtFactor) != 0.0f ? 1.0 + 0.1 * std::log(1.0 / scale) : 1.0;
  shape.attention_factor = static_cast<float>(static_cast<double>(FloatParam(rope, kAttnFactor)) * gain);
  return shape;
}

}  // namespace kvant
