#include "llama/runner_gguf.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include "llama/runner_gguf_keys.h"
#include "llama/runner_log.h"

namespace kvant {
namespace {

Status CheckComplete(const gguf_context* file, const std::string& path, int64_t file_bytes) {
  const size_t data = gguf_get_data_offset(file);
  for (int64_t i = 0; i < gguf_get_n_tensors(file); ++i) {
    const size_t end = data + gguf_get_tensor_offset(file, i) + gguf_get_tensor_size(file, i);
    if (end <= static_cast<size_t>(file_bytes)) continue;
    return Status::Corruption(StrFormat("%s: truncated: tensor %s ends at byte %zu, the file has %lld", path.c_str(),
                                        gguf_get_tensor_name(file, i), end, static_cast<long long>(file_bytes)));
  }
  return Status::Ok();
}

Status ReadLayers(const ModelKeys& keys, ModelInfo* info) {
  const std::optional<int64_t> num_layers = keys.Find("block_count");
  const std::optional<int64_t> width = keys.Find("embedding_length");
  if (!num_layers || *num_layers < 1) return keys.Missing("block_count");
  if (!width) return keys.Missing("embedding_length");
  for (size_t i = 0; i < static_cast<size_t>(*num_layers - keys.Find("nextn_predict_layers").value_or(0)); ++i) {
    const int64_t heads = keys.Find("attention.head_count", i).value_or(info->q_heads);
    const int64_t kv_heads = keys.Find("attention.head_count_kv", i).value_or(heads);
    info->blocks.push_back({.memory = BlockMemory::kNothing});
    if (kv_heads <= 0) continue;  // a layer without attention
    info->blocks.back() = {.memory = BlockMemory::kAll, .layer = static_cast<int>(info->layers.size())};
    const int64_t dim = heads > 0 ? *width / heads : 0;
    info->layers.push_back({.kv_heads = static_cast<int>(kv_heads),
                            .k_dim = static_cast<int>(keys.Find("attention.key_length").value_or(dim)),
                            .v_dim = static_cast<int>(keys.Find("attention.value_length").value_or(dim))});
  }
  return Status::Ok();
}

}  // namespace

Result<Gguf> OpenGguf(const std::string& path) {
  std::error_code error;
  const auto file_bytes = std::filesystem::file_size(path, error);
  if (error) return Status::NotFound("model file " + path + ": " + error.message());
  const LogCapture log;
  Gguf file(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}));
  if (!file) return Status::Corruption(path + ": not a GGUF model file (" + log.Reason() + ")");
  KVANT_TRY(CheckComplete(file.get(), path, static_cast<int64_t>(file_bytes)));
  return file;
}

Result<ModelInfo> ReadGguf(const std::string& path) {
  Result<Gguf> opened = OpenGguf(path);
  if (!opened.ok()) return opened.status();
  const gguf_context* file = opened.value().get();

  const int64_t name = gguf_find_key(file, "general.architecture");
  if (name < 0 || gguf_get_kv_type(file, name) != GGUF_TYPE_STRING) {
    return Status::Corruption(path + ": not a model: no key general.architecture");
  }
  ModelInfo info;
  info.path = path;
  info.architecture = gguf_get_val_str(file, name);
  info.file_bytes = static_cast<int64_t>(std::filesystem::file_size(path));

  const ModelKeys keys(file, info.architecture);
  info.context_train = static_cast<int>(keys.Find("context_length").value_or(0));
  info.q_heads = static_cast<int>(keys.Find("attention.head_count", 0).value_or(0));
  if (info.context_train < 1) return keys.Missing("context_length");
  KVANT_TRY(ReadLayers(keys, &info));
  ReadBlockMemory(file, keys, &info);
  const int64_t tokens = gguf_find_key(file, "tokenizer.ggml.tokens");
  info.vocab_size = tokens < 0 ? 0 : static_cast<int>(gguf_get_arr_n(file, tokens));
  info.has_chat_template = gguf_find_key(file, "tokenizer.chat_template") >= 0;
  return info;
}

}  // namespace kvant
