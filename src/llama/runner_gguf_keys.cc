#include "llama/runner_gguf_keys.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <string_view>

namespace kvant {
namespace {

std::optional<int64_t> Scalar(const gguf_context* file, int64_t key) {
  switch (gguf_get_kv_type(file, key)) {
    case GGUF_TYPE_UINT32:
      return gguf_get_val_u32(file, key);
    case GGUF_TYPE_INT32:
      return gguf_get_val_i32(file, key);
    case GGUF_TYPE_UINT64:
      return static_cast<int64_t>(gguf_get_val_u64(file, key));
    case GGUF_TYPE_UINT16:
      return gguf_get_val_u16(file, key);
    default:
      return std::nullopt;
  }
}

/// Of `period` blocks one sees all tokens, the last one or the first; the others have the window. For architectures whose
/// files do not say so. Period 1: no block has a window.
struct WindowPattern {
  const char* architecture;
  int period;
  bool first_sees_all = false;
};
constexpr WindowPattern kWindowPatterns[] = {{"gemma2", 2},  {"gemma3", 6}, {"gemma3n", 5},           {"cohere2", 4},
                                             {"gpt-oss", 2}, {"llama4", 4}, {"exaone4", 4},           {"olmo2", 4},
                                             {"plamo3", 8},  {"phi3", 1},   {"smallthinker", 4, true}};

WindowPattern PatternOf(const ModelKeys& keys, const std::string& architecture) {
  WindowPattern pattern = {architecture.c_str(), 1};
  const auto known = std::ranges::find(kWindowPatterns, architecture, &WindowPattern::architecture);
  if (known != std::end(kWindowPatterns)) pattern = *known;
  pattern.period = static_cast<int>(keys.Find("attention.sliding_window_pattern").value_or(pattern.period));
  return pattern;
}

bool HasWindow(const WindowPattern& pattern, size_t block) {
  if (pattern.period <= 0) return true;
  const size_t period = static_cast<size_t>(pattern.period);
  return block % period != (pattern.first_sees_all ? 0 : period - 1);
}

void ReadWindows(const ModelKeys& keys, ModelInfo* info) {
  constexpr const char* kPattern = "attention.sliding_window_pattern";
  const int64_t window = keys.Find("attention.sliding_window").value_or(0);
  if (window <= 0) return;
  const WindowPattern pattern = PatternOf(keys, info->architecture);
  for (size_t i = 0; i < info->blocks.size(); ++i) {
    BlockInfo& block = info->blocks[i];
    const bool has = keys.IsArray(kPattern) ? keys.Find(kPattern, i).value_or(0) != 0 : HasWindow(pattern, i);
    if (!has || block.layer < 0) continue;
    block.memory = BlockMemory::kWindow;
    info->window = static_cast<int>(window);
  }
}

/// What the names of a block's tensors show.
struct TensorSigns {
  bool state = false;   // ssm_*, shortconv.*, time_mix_*
  bool latent = false;  // attn_k_b: K comes from the latent row
  bool keys = false;    // attn_k: K is computed for each head
};

// "blk.12.ssm_in.weight": block 12, "ssm_in.weight".
void AddSigns(std::string_view tensor, std::vector<TensorSigns>* blocks) {
  constexpr std::string_view kPrefix = "blk.";
  if (!tensor.starts_with(kPrefix)) return;
  size_t block = 0;
  const auto [rest, error] = std::from_chars(tensor.data() + kPrefix.size(), tensor.data() + tensor.size(), block);
  if (error != std::errc{} || block >= blocks->size()) return;
  const std::string_view name(rest, static_cast<size_t>(tensor.data() + tensor.size() - rest));
  TensorSigns& signs = (*blocks)[block];
  for (const char* start : {".ssm_", ".shortconv.", ".time_mix_"}) signs.state = signs.state || name.starts_with(start);
  signs.latent = signs.latent || name.starts_with(".attn_k_b.");
  signs.keys = signs.keys || name.starts_with(".attn_k.");
}

}  // namespace

std::optional<int64_t> ModelKeys::Find(const char* name) const {
  const int64_t key = gguf_find_key(file_, (prefix_ + name).c_str());
  return key < 0 ? std::nullopt : Scalar(file_, key);
}

std::optional<int64_t> ModelKeys::Find(const char* name, size_t layer) const {
  if (!IsArray(name)) return Find(name);
  const int64_t key = gguf_find_key(file_, (prefix_ + name).c_str());
  const gguf_type type = gguf_get_arr_type(file_, key);
  if (layer >= gguf_get_arr_n(file_, key)) return {};
  if (type == GGUF_TYPE_BOOL) return static_cast<const int8_t*>(gguf_get_arr_data(file_, key))[layer];
  if (type != GGUF_TYPE_INT32 && type != GGUF_TYPE_UINT32) return {};
  return static_cast<const int32_t*>(gguf_get_arr_data(file_, key))[layer];
}

bool ModelKeys::IsArray(const char* name) const {
  const int64_t key = gguf_find_key(file_, (prefix_ + name).c_str());
  return key >= 0 && gguf_get_kv_type(file_, key) == GGUF_TYPE_ARRAY;
}

Status ModelKeys::Missing(const char* name) const {
  return Status::Corruption("the model file has no usable key " + prefix_ + name);
}

void ReadBlockMemory(const gguf_context* file, const ModelKeys& keys, ModelInfo* info) {
  ReadWindows(keys, info);
  std::vector<TensorSigns> signs(info->blocks.size());
  for (int64_t i = 0; i < gguf_get_n_tensors(file); ++i) AddSigns(gguf_get_tensor_name(file, i), &signs);
  const bool all_latent = keys.Find("attention.key_length_mla").value_or(0) > 0;
  for (size_t i = 0; i < signs.size(); ++i) {
    BlockMemory& memory = info->blocks[i].memory;
    const bool attends = memory != BlockMemory::kNothing;
    if (attends && (signs[i].latent || (all_latent && !signs[i].state))) memory = BlockMemory::kLatent;
    if (signs[i].state) memory = attends && signs[i].keys ? BlockMemory::kAllAndState : BlockMemory::kState;
  }
}

}  // namespace kvant
