// What a calibration reads from a model's file beside running it: a hash, and the output projections of its layers.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/hash.h"
#include "ggml.h"
#include "llama/runner.h"
#include "llama/runner_gguf.h"

namespace kvant {
namespace {

// Of each tensor's data, from its start: enough to tell a fine-tuned model from its origin.
constexpr size_t kHashedBytes = 64 << 10;
// Rows of a projection that are handed over at a time.
constexpr int64_t kRowsAtATime = 256;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

/// The tensors of a GGUF file.
class TensorFile {
 public:
  static Result<TensorFile> Open(const std::string& path) {
    Result<Gguf> header = OpenGguf(path);
    if (!header.ok()) return header.status();
    std::unique_ptr<std::FILE, CloseFile> data(std::fopen(path.c_str(), "rb"));
    if (data == nullptr) return Status::IoError("model file " + path + ": cannot be read");
    return TensorFile(path, std::move(*header), std::move(data));
  }

  const gguf_context* header() const { return header_.get(); }
  Status Read(int64_t tensor, size_t byte_ofs, std::vector<std::byte>* out) const {
    const size_t at = gguf_get_data_offset(header()) + gguf_get_tensor_offset(header(), tensor) + byte_ofs;
    if (std::fseek(data_.get(), static_cast<long>(at), SEEK_SET) == 0 &&
        std::fread(out->data(), 1, out->size(), data_.get()) == out->size()) {
      return Status::Ok();
    }
    return Status::IoError("model file " + path_ + ": cannot be read");
  }

 private:
  TensorFile(std::string path, Gguf header, std::unique_ptr<std::FILE, CloseFile> data)
      : path_(std::move(path)), header_(std::move(header)), data_(std::move(data)) {}
  std::string path_;
  Gguf header_;
  std::unique_ptr<std::FILE, CloseFile> data_;
};

Status HashTensor(const TensorFile& file, int64_t tensor, Hash* hash) {
  const std::string name = gguf_get_tensor_name(file.header(), tensor);
  const int32_t type = gguf_get_tensor_type(file.header(), tensor);
  hash->Add(name.c_str(), name.size() + 1);
  hash->Add(&type, sizeof(type));
  hash->Add(gguf_get_tensor_ne(file.header(), tensor), sizeof(int64_t) * GGML_MAX_DIMS);
  std::vector<std::byte> data(std::min(gguf_get_tensor_size(file.header(), tensor), kHashedBytes));
  KVANT_TRY(file.Read(tensor, 0, &data));
  hash->Add(data.data(), data.size());
  return Status::Ok();
}

// Rows of a weight in ggml's order: one per output, a value per input.
Status ShowRows(const TensorFile& file, int64_t tensor, int layer, RowWatcher* watcher) {
  const ggml_type type = gguf_get_tensor_type(file.header(), tensor);
  const int64_t* ne = gguf_get_tensor_ne(file.header(), tensor);
  const ggml_to_float_t to_float = ggml_get_type_traits(type)->to_float;
  if (to_float == nullptr && type != GGML_TYPE_F32) {
    return Status::NotSupported(StrFormat("%s: cannot read weights of type %s",
                                          gguf_get_tensor_name(file.header(), tensor), ggml_type_name(type)));
  }
  const size_t row_bytes = ggml_row_size(type, ne[0]);
  std::vector<float> rows;
  std::vector<std::byte> data;
  for (int64_t first = 0; first < ne[1]; first += kRowsAtATime) {
    const int64_t count = std::min(kRowsAtATime, ne[1] - first);
    data.resize(static_cast<size_t>(count) * row_bytes);
    rows.resize(static_cast<size_t>(count * ne[0]));
    KVANT_TRY(file.Read(tensor, static_cast<size_t>(first) * row_bytes, &data));
    if (type == GGML_TYPE_F32) {
      std::copy_n(reinterpret_cast<const float*>(data.data()), rows.size(), rows.data());
    } else {
      to_float(data.data(), rows.data(), static_cast<int64_t>(rows.size()));
    }
    watcher->Add(RowKind::kOutput, layer, count, static_cast<int>(ne[0]), rows.data(), static_cast<size_t>(ne[0]));
  }
  return Status::Ok();
}

}  // namespace

Result<std::string> Runner::HashModel(const std::string& model_path) {
  const Result<TensorFile> file = TensorFile::Open(model_path);
  if (!file.ok()) return file.status();
  Hash hash;
  for (int64_t i = 0; i < gguf_get_n_tensors(file->header()); ++i) KVANT_TRY(HashTensor(*file, i, &hash));
  return hash.Hex();
}

Status Runner::ShowOutputWeights(const std::string& model_path, RowWatcher* watcher) {
  const Result<TensorFile> file = TensorFile::Open(model_path);
  if (!file.ok()) return file.status();
  const Result<ModelInfo> info = ReadGguf(model_path);
  if (!info.ok()) return info.status();
  for (int layer = 0; layer < static_cast<int>(info->layers.size()); ++layer) {
    const std::string name = StrFormat("blk.%d.attn_output.weight", layer);
    const int64_t tensor = gguf_find_tensor(file->header(), name.c_str());
    if (tensor < 0) return Status::NotSupported(model_path + ": has no tensor " + name + ", which calibration needs");
    KVANT_TRY(ShowRows(*file, tensor, layer, watcher));
  }
  return Status::Ok();
}

}  // namespace kvant
