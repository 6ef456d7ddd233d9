#include "llama/runner.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/check.h"
#include "llama.h"
#include "llama/proxy_device.h"
#include "llama/runner_cache.h"
#include "llama/runner_gguf.h"
#include "llama/runner_log.h"
#include "llama/runner_watch.h"

namespace kvant {
namespace {

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};
using Model = std::unique_ptr<llama_model, Free>;
using Context = std::unique_ptr<llama_context, Free>;

constexpr llama_seq_id kSequence = 0;

// Before the payload of a saved state, so that foreign bytes do not reach libllama.
struct StateHeader {
  char magic[8] = {'K', 'V', 'R', 'U', 'N', 'N', 'E', 'R'};
  uint32_t version = 1;
  uint32_t vocab_size = 0;
  uint64_t num_layers = 0;
  uint64_t num_tokens = 0;
  uint64_t payload_bytes = 0;
};

ggml_backend_dev_t CpuDevice() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_backend_init();
    // libllama may be built with its CPU backend as a library of its own.
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) ggml_backend_load_all();
  });
  return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

enum class Load { kAll, kMetadata };

// `maybe_device`: all layers go there; null: CPU only.
Result<Model> LoadModel(const std::string& path, ggml_backend_dev_t maybe_device, Load what) {
  const LogCapture log;
  ggml_backend_dev_t devices[] = {maybe_device, nullptr};
  llama_model_params params = llama_model_default_params();
  params.devices = devices;
  params.n_gpu_layers = maybe_device ? -1 : 0;
  params.no_alloc = what == Load::kMetadata;
  if (params.no_alloc) params.load_mode = LLAMA_LOAD_MODE_NONE;  // nothing to map
  Model model(llama_model_load_from_file(path.c_str(), params));
  if (model) return model;
  return Status::NotSupported("model file " + path + ": " + log.Reason());
}

Status CheckNumbers(const RunnerOptions& options) {
  const auto check = [](const char* name, int value) {
    return value >= 1 ? Status::Ok() : Status::InvalidArgument(StrFormat("%s %d: at least 1", name, value));
  };
  KVANT_TRY(check("context", options.context));
  KVANT_TRY(check("batch", options.batch));
  KVANT_TRY(check("threads", options.threads));
  if (options.maybe_watcher != nullptr && options.cache != "f16") {
    return Status::InvalidArgument("rows can be watched with the cache f16 only");
  }
  return check("sequences", options.sequences);
}

Status CheckModel(const RunnerOptions& options, const CacheChoice& choice, const ModelInfo& info) {
  if (options.context > info.context_train) {
    return Status::InvalidArgument(
        StrFormat("context %d: the model was trained for at most %d tokens", options.context, info.context_train));
  }
  if (choice.scheme) return CheckScheme(*choice.scheme, info.layers, options.maybe_calibration.get());
  const size_t bytes = StockBytes(choice, info.layers, static_cast<int64_t>(options.context) * options.sequences);
  if (options.memory_limit_bytes == 0 || bytes <= options.memory_limit_bytes) return Status::Ok();
  return Status::OutOfMemory(StrFormat("cache %s: %zu bytes for %d tokens, the limit is %zu", options.cache.c_str(),
                                       bytes, options.context, options.memory_limit_bytes));
}

class LlamaRunner : public Runner {
 public:
  LlamaRunner(const RunnerOptions& options, CacheChoice choice, ModelInfo info, std::unique_ptr<ProxyDevice> device,
              Model model)
      : options_(options),
        choice_(std::move(choice)),
        info_(std::move(info)),
        device_(std::move(device)),
        model_(std::move(model)),
        vocab_(llama_model_get_vocab(model_.get())),
        watch_(options.maybe_watcher) {}

  Status MakeContext();

  const ModelInfo& info() const override { return info_; }
  std::vector<int> Tokenize(std::string_view text, bool add_bos) const override;
  std::string Detokenize(int token) const override;
  bool IsEndOfGeneration(int token) const override { return llama_vocab_is_eog(vocab_, token); }
  Result<std::string> ApplyChatTemplate(std::string_view user_message) const override;

  Status Decode(std::span<const int> tokens, bool all_logits) override;
  std::span<const float> Logits(int i) const override;
  int64_t num_tokens() const override { return num_tokens_; }

  Status Truncate(int64_t num_tokens) override;
  Result<std::vector<std::byte>> SaveState() override;
  Status LoadState(std::span<const std::byte> state) override;

  CacheUse cache_use() const override;

 private:
  Status DecodeChunk(std::span<const int> tokens, bool all_logits, bool is_last);
  Status DecodeError(int32_t code, const LogCapture& log) const;
  void KeepLogits(int row);

  const RunnerOptions options_;
  const CacheChoice choice_;
  const ModelInfo info_;
  const std::unique_ptr<ProxyDevice> device_;  // outlives model and context; null: a stock cache
  const Model model_;
  const llama_vocab* const vocab_;
  NodeWatch watch_;
  Context context_;
  int64_t num_tokens_ = 0;
  std::vector<float> logits_;  // [rows, vocab_size] of the last Decode
};

Status LlamaRunner::MakeContext() {
  const LogCapture log;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(options_.context) * static_cast<uint32_t>(options_.sequences);
  params.n_batch = params.n_ubatch = static_cast<uint32_t>(std::min(options_.batch, options_.context));
  params.n_seq_max = static_cast<uint32_t>(options_.sequences);
  params.n_threads = params.n_threads_batch = options_.threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.type_k = choice_.key_type;
  params.type_v = choice_.value_type;
  params.no_perf = true;
  if (options_.maybe_watcher != nullptr) {
    params.cb_eval = NodeWatch::OnNode;
    params.cb_eval_user_data = &watch_;
  }
  context_.reset(llama_init_from_model(model_.get(), params));
  if (context_) return Status::Ok();
  if (device_ && !device_->errors().last().ok()) return device_->errors().last();
  return Status::NotSupported("model " + info_.path + ": no context: " + log.Reason());
}

// ---- Text ----

std::vector<int> LlamaRunner::Tokenize(std::string_view text, bool add_bos) const {
  std::vector<int> tokens(text.size() + 2);
  const auto length = static_cast<int32_t>(text.size());
  int32_t count =
      llama_tokenize(vocab_, text.data(), length, tokens.data(), static_cast<int32_t>(tokens.size()), add_bos,
                     /*parse_special=*/true);
  if (count < 0) {
    tokens.resize(static_cast<size_t>(-count));
    count = llama_tokenize(vocab_, text.data(), length, tokens.data(), -count, add_bos, /*parse_special=*/true);
  }
  tokens.resize(static_cast<size_t>(std::max(count, 0)));
  return tokens;
}

std::string LlamaRunner::Detokenize(int token) const {
  std::string piece(64, '\0');
  int32_t length = llama_token_to_piece(vocab_, token, piece.data(), static_cast<int32_t>(piece.size()), 0, false);
  if (length < 0) {
    piece.resize(static_cast<size_t>(-length));
    length = llama_token_to_piece(vocab_, token, piece.data(), -length, 0, false);
  }
  piece.resize(static_cast<size_t>(std::max(length, 0)));
  return piece;
}

Result<std::string> LlamaRunner::ApplyChatTemplate(std::string_view user_message) const {
  const char* text = llama_model_chat_template(model_.get(), nullptr);
  if (text == nullptr) return Status::NotSupported("the model has no chat template");
  const std::string content(user_message);
  const llama_chat_message message = {"user", content.c_str()};
  std::string prompt(2 * content.size() + 256, '\0');
  int32_t length =
      llama_chat_apply_template(text, &message, 1, true, prompt.data(), static_cast<int32_t>(prompt.size()));
  if (length > static_cast<int32_t>(prompt.size())) {
    prompt.resize(static_cast<size_t>(length));
    length = llama_chat_apply_template(text, &message, 1, true, prompt.data(), length);
  }
  if (length < 0) return Status::NotSupported("the model's chat template is none that llama.cpp knows");
  prompt.resize(static_cast<size_t>(length));
  return prompt;
}

// ---- Tokens in, logits out ----

Status LlamaRunner::Decode(std::span<const int> tokens, bool all_logits) {
  if (tokens.empty()) return Status::InvalidArgument("no tokens to decode");
  const auto bad = std::ranges::find_if(tokens, [&](int t) { return t < 0 || t >= info_.vocab_size; });
  if (bad != tokens.end()) {
    return Status::InvalidArgument(StrFormat("token %d: the vocabulary has %d", *bad, info_.vocab_size));
  }
  if (num_tokens_ + static_cast<int64_t>(tokens.size()) > options_.context) {
    return Status::InvalidArgument(StrFormat("context full: %lld tokens held, %zu more do not fit in %d",
                                             static_cast<long long>(num_tokens_), tokens.size(), options_.context));
  }
  logits_.clear();
  const int64_t before = num_tokens_;
  for (size_t first = 0; first < tokens.size();) {
    const size_t count = std::min(tokens.size() - first, static_cast<size_t>(options_.batch));
    const Status status = DecodeChunk(tokens.subspan(first, count), all_logits, first + count == tokens.size());
    if (!status.ok()) {
      logits_.clear();
      KVANT_TRY(Truncate(before));
      return status;
    }
    first += count;
  }
  return Status::Ok();
}

Status LlamaRunner::DecodeChunk(std::span<const int> tokens, bool all_logits, bool is_last) {
  const LogCapture log;
  const auto count = static_cast<int32_t>(tokens.size());
  llama_batch batch = llama_batch_init(count, 0, 1);
  batch.n_tokens = count;
  for (int32_t i = 0; i < count; ++i) {
    batch.token[i] = tokens[static_cast<size_t>(i)];
    batch.pos[i] = static_cast<llama_pos>(num_tokens_ + i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = kSequence;
    batch.logits[i] = all_logits || (is_last && i == count - 1);
  }
  const int32_t code = llama_decode(context_.get(), batch);
  llama_batch_free(batch);
  if (code != 0) return DecodeError(code, log);
  num_tokens_ += count;
  for (int32_t i = all_logits ? 0 : count - 1; i < count && (all_logits || is_last); ++i) KeepLogits(i);
  return Status::Ok();
}

Status LlamaRunner::DecodeError(int32_t code, const LogCapture& log) const {
  if (device_ && !device_->errors().last().ok()) {
    const Status status = device_->errors().last();
    device_->errors().Clear();
    return status;
  }
  const std::string reason = StrFormat("llama_decode failed (%d): %s", code, log.Reason().c_str());
  return code == -2 ? Status::OutOfMemory(reason) : Status::Internal(reason);
}

void LlamaRunner::KeepLogits(int row) {
  const float* logits = llama_get_logits_ith(context_.get(), row);
  logits_.insert(logits_.end(), logits, logits + info_.vocab_size);
}

std::span<const float> LlamaRunner::Logits(int i) const {
  const auto width = static_cast<size_t>(info_.vocab_size);
  const size_t rows = logits_.size() / width;
  const size_t row = i < 0 ? rows - 1 : static_cast<size_t>(i);
  KVANT_CHECK(row < rows);
  return {logits_.data() + row * width, width};
}

// ---- State ----

Status LlamaRunner::Truncate(int64_t num_tokens) {
  if (num_tokens < 0 || num_tokens > num_tokens_) {
    return Status::InvalidArgument(StrFormat("cannot truncate to %lld tokens: %lld are held",
                                             static_cast<long long>(num_tokens), static_cast<long long>(num_tokens_)));
  }
  const llama_memory_t memory = llama_get_memory(context_.get());
  if (num_tokens == 0) {
    llama_memory_clear(memory, /*data=*/true);
  } else if (!llama_memory_seq_rm(memory, kSequence, static_cast<llama_pos>(num_tokens), -1)) {
    return Status::NotSupported("the model's cache cannot forget a part of its tokens");
  }
  num_tokens_ = num_tokens;
  return Status::Ok();
}

Result<std::vector<std::byte>> LlamaRunner::SaveState() {
  const LogCapture log;
  StateHeader header;
  header.vocab_size = static_cast<uint32_t>(info_.vocab_size);
  header.num_layers = info_.layers.size();
  header.num_tokens = static_cast<uint64_t>(num_tokens_);
  header.payload_bytes = llama_state_seq_get_size(context_.get(), kSequence);
  std::vector<std::byte> state(sizeof(header) + header.payload_bytes);
  std::memcpy(state.data(), &header, sizeof(header));
  auto* payload = reinterpret_cast<uint8_t*>(state.data() + sizeof(header));
  if (llama_state_seq_get_data(context_.get(), payload, header.payload_bytes, kSequence) == header.payload_bytes) {
    return state;
  }
  return Status::Internal("the state could not be saved: " + log.Reason());
}

Status LlamaRunner::LoadState(std::span<const std::byte> state) {
  const LogCapture log;
  StateHeader header;
  const StateHeader expected;
  if (state.size() < sizeof(header)) return Status::Corruption("not a saved state: shorter than its header");
  std::memcpy(&header, state.data(), sizeof(header));
  if (std::memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0 || header.version != expected.version) {
    return Status::Corruption("not a saved state, or one of another version");
  }
  if (header.vocab_size != static_cast<uint32_t>(info_.vocab_size) || header.num_layers != info_.layers.size() ||
      header.payload_bytes != state.size() - sizeof(header)) {
    return Status::Corruption("a saved state of another model, or truncated");
  }
  if (header.num_tokens > static_cast<uint64_t>(options_.context)) {
    return Status::InvalidArgument(StrFormat("the saved state has %llu tokens, the context %d",
                                             static_cast<unsigned long long>(header.num_tokens), options_.context));
  }
  KVANT_TRY(Truncate(0));
  const auto* payload = reinterpret_cast<const uint8_t*>(state.data() + sizeof(header));
  if (llama_state_seq_set_data(context_.get(), payload, header.payload_bytes, kSequence) == 0) {
    return Status::Corruption("the saved state does not decode: " + log.Reason());
  }
  if (device_ && !device_->errors().last().ok()) {
    const Status status = device_->errors().last();
    device_->errors().Clear();
    KVANT_TRY(Truncate(0));
    return status;
  }
  num_tokens_ = static_cast<int64_t>(header.num_tokens);
  logits_.clear();
  return Status::Ok();
}

CacheUse LlamaRunner::cache_use() const {
  if (!device_) return StockUse(choice_, info_.layers, num_tokens_, llama_n_ctx(context_.get()));
  CacheUse use;
  use.footprint = device_->footprint();
  use.memory_bytes = device_->memory_bytes();
  use.seal_seconds = device_->seal_seconds();
  use.fp16_bytes = 2 * use.footprint.values;
  use.bases = DescribeBases(*choice_.scheme, info_.layers, options_.maybe_calibration.get());
  return use;
}

// What only libllama can say.
void Complete(ModelInfo* info, const llama_model& model) {
  char text[256];
  llama_model_desc(&model, text, sizeof(text));
  info->description = text;
  info->parameters = static_cast<int64_t>(llama_model_n_params(&model));
  info->vocab_size = llama_vocab_n_tokens(llama_model_get_vocab(&model));
}

}  // namespace

Result<ModelInfo> Runner::Inspect(const std::string& model_path) {
  CpuDevice();
  Result<ModelInfo> info = ReadGguf(model_path);
  if (!info.ok()) return info;
  const Result<Model> model = LoadModel(model_path, nullptr, Load::kMetadata);
  if (!model.ok()) return model.status();
  Complete(&info.value(), **model);
  return info;
}

Result<std::unique_ptr<Runner>> Runner::Open(const RunnerOptions& options) {
  KVANT_TRY(CheckNumbers(options));
  Result<CacheChoice> choice = ParseCacheChoice(options.model_path, options.cache);
  if (!choice.ok()) return choice.status();
  Result<ModelInfo> info = ReadGguf(options.model_path);
  if (!info.ok()) return info.status();
  KVANT_TRY(CheckModel(options, *choice, *info));

  ggml_backend_dev_t cpu = CpuDevice();
  if (cpu == nullptr) return Status::NotFound("libllama has no CPU backend");
  std::unique_ptr<ProxyDevice> device;
  if (choice->scheme) {
    Result<std::unique_ptr<ProxyDevice>> made =
        ProxyDevice::Create(cpu, {.scheme = *choice->scheme,
                                  .memory_limit_bytes = options.memory_limit_bytes,
                                  .maybe_calibration = options.maybe_calibration});
    if (!made.ok()) return made.status();
    device = std::move(made).value();
  }
  Result<Model> model = LoadModel(options.model_path, device ? device->device() : nullptr, Load::kAll);
  if (!model.ok()) return model.status();
  Complete(&info.value(), **model);
  auto runner = std::make_unique<LlamaRunner>(options, std::move(choice).value(), std::move(info).value(),
                                              std::move(device), std::move(model).value());
  KVANT_TRY(runner->MakeContext());
  return std::unique_ptr<Runner>(std::move(runner));
}

}  // namespace kvant
