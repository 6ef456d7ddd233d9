#include "llama/runner.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>

#include "base/check.h"
#include "llama.h"
#include "llama/inner_device.h"
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

// Before the payload of a saved state, so that foreign bytes do not reach libllama.
struct StateHeader {
  char magic[8] = {'K', 'V', 'R', 'U', 'N', 'N', 'E', 'R'};
  uint32_t version = 1;
  uint32_t vocab_size = 0;
  uint64_t num_layers = 0;
  uint64_t num_tokens = 0;
  uint64_t payload_bytes = 0;
};

void InitLlama() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_backend_init();
    // libllama may be built with its back ends as libraries of their own.
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) ggml_backend_load_all();
  });
}

Result<ggml_backend_dev_t> InnerDevice(std::string_view name) {
  InitLlama();
  return FindInnerDevice(name, {ggml_backend_dev_count, ggml_backend_dev_get});
}

// Rows are watched in host memory.
Result<ggml_backend_dev_t> InnerDeviceOf(const RunnerOptions& options) {
  const bool watched = options.maybe_watcher != nullptr;
  Result<ggml_backend_dev_t> inner = InnerDevice(watched && options.device == "auto" ? "cpu" : options.device);
  if (!watched || !inner.ok() || !IsCuda(*inner)) return inner;
  return Status::InvalidArgument("rows can be watched on the device cpu only, not on " + options.device);
}

enum class Load { kAll, kMetadata };

// `maybe_device`: all layers go there; null or the CPU itself: CPU only.
Result<Model> LoadModel(const std::string& path, ggml_backend_dev_t maybe_device, Load what) {
  const LogCapture log;
  if (maybe_device && ggml_backend_dev_type(maybe_device) == GGML_BACKEND_DEVICE_TYPE_CPU) maybe_device = nullptr;
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
        watch_(options.maybe_watcher),
        held_(static_cast<size_t>(options.sequences)) {}

  Status MakeContext();

  const ModelInfo& info() const override { return info_; }
  std::vector<int> Tokenize(std::string_view text, bool add_bos) const override;
  std::string Detokenize(int token) const override;
  bool IsEndOfGeneration(int token) const override { return llama_vocab_is_eog(vocab_, token); }
  Result<std::string> ApplyChatTemplate(std::string_view user_message) const override;

  Status Decode(std::span<const int> tokens, bool all_logits) override;
  std::span<const float> Logits(int i) const override;
  int64_t num_tokens() const override { return held(); }
  void UseSequence(int sequence) override;
  Status DecodeTogether(std::span<const int> tokens) override;

  Status Truncate(int64_t num_tokens) override;
  Status Shift(int64_t first, int64_t count) override;
  Result<std::vector<std::byte>> SaveState() override;
  Status LoadState(std::span<const std::byte> state) override;

  CacheUse cache_use() const override;

 private:
  int64_t& held() { return held_[static_cast<size_t>(sequence_)]; }
  int64_t held() const { return held_[static_cast<size_t>(sequence_)]; }
  Status CheckTokens(std::span<const int> tokens) const;
  Status CheckRoom(int64_t held, size_t more) const;
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
  std::vector<int64_t> held_;  // tokens of each sequence
  int sequence_ = 0;
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

Status LlamaRunner::CheckTokens(std::span<const int> tokens) const {
  if (tokens.empty()) return Status::InvalidArgument("no tokens to decode");
  const auto bad = std::ranges::find_if(tokens, [&](int t) { return t < 0 || t >= info_.vocab_size; });
  if (bad == tokens.end()) return Status::Ok();
  return Status::InvalidArgument(StrFormat("token %d: the vocabulary has %d", *bad, info_.vocab_size));
}

Status LlamaRunner::CheckRoom(int64_t held, size_t more) const {
  if (held + static_cast<int64_t>(more) <= options_.context) return Status::Ok();
  return Status::InvalidArgument(StrFormat("context full: %lld tokens held, %zu more do not fit in %d",
                                           static_cast<long long>(held), more, options_.context));
}

Status LlamaRunner::Decode(std::span<const int> tokens, bool all_logits) {
  KVANT_TRY(CheckTokens(tokens));
  KVANT_TRY(CheckRoom(held(), tokens.size()));
  logits_.clear();
  const int64_t before = held();
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

// A token at the end of `batch`.
void AddToken(llama_batch& batch, int token, int64_t pos, llama_seq_id sequence, bool logits) {
  const int32_t i = batch.n_tokens++;
  batch.token[i] = token;
  batch.pos[i] = static_cast<llama_pos>(pos);
  batch.n_seq_id[i] = 1;
  batch.seq_id[i][0] = sequence;
  batch.logits[i] = logits;
}

Status LlamaRunner::DecodeChunk(std::span<const int> tokens, bool all_logits, bool is_last) {
  const LogCapture log;
  const auto count = static_cast<int32_t>(tokens.size());
  llama_batch batch = llama_batch_init(count, 0, 1);
  for (int32_t i = 0; i < count; ++i) {
    AddToken(batch, tokens[static_cast<size_t>(i)], held() + i, sequence_, all_logits || (is_last && i == count - 1));
  }
  const int32_t code = llama_decode(context_.get(), batch);
  llama_batch_free(batch);
  if (code != 0) return DecodeError(code, log);
  held() += count;
  for (int32_t i = all_logits ? 0 : count - 1; i < count && (all_logits || is_last); ++i) KeepLogits(i);
  return Status::Ok();
}

void LlamaRunner::UseSequence(int sequence) {
  KVANT_CHECK(sequence >= 0 && sequence < options_.sequences);
  sequence_ = sequence;
  logits_.clear();
}

Status LlamaRunner::DecodeTogether(std::span<const int> tokens) {
  KVANT_TRY(CheckTokens(tokens));
  if (tokens.size() > held_.size()) {
    return Status::InvalidArgument(StrFormat("%zu tokens for %zu sequences", tokens.size(), held_.size()));
  }
  for (size_t s = 0; s < tokens.size(); ++s) KVANT_TRY(CheckRoom(held_[s], 1));
  const LogCapture log;
  llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
  for (size_t s = 0; s < tokens.size(); ++s) AddToken(batch, tokens[s], held_[s], static_cast<llama_seq_id>(s), true);
  const int32_t code = llama_decode(context_.get(), batch);
  llama_batch_free(batch);
  logits_.clear();
  if (code == 0) {
    for (size_t s = 0; s < tokens.size(); ++s) {
      KeepLogits(static_cast<int32_t>(s));
      ++held_[s];
    }
    return Status::Ok();
  }
  const Status status = DecodeError(code, log);
  for (size_t s = 0; s < tokens.size(); ++s) {
    llama_memory_seq_rm(llama_get_memory(context_.get()), static_cast<llama_seq_id>(s),
                        static_cast<llama_pos>(held_[s]), -1);
  }
  return status;
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
  if (num_tokens < 0 || num_tokens > held()) {
    return Status::InvalidArgument(StrFormat("cannot truncate to %lld tokens: %lld are held",
                                             static_cast<long long>(num_tokens), static_cast<long long>(held())));
  }
  const llama_memory_t memory = llama_get_memory(context_.get());
  if (num_tokens == 0 && std::accumulate(held_.begin(), held_.end(), int64_t{0}) == held()) {
    // Nothing is left: the cache gives back what removed cells keep until a graph, which could not run at the memory limit.
    llama_memory_clear(memory, /*data=*/true);
  } else if (!llama_memory_seq_rm(memory, sequence_, static_cast<llama_pos>(num_tokens), -1)) {
    return Status::NotSupported("the model's cache cannot forget a part of its tokens");
  }
  held() = num_tokens;
  return Status::Ok();
}

Status LlamaRunner::Shift(int64_t first, int64_t count) {
  if (first < 0 || count < 0 || first + count > held()) {
    return Status::InvalidArgument(StrFormat("cannot forget %lld tokens from %lld on: %lld are held",
                                             static_cast<long long>(count), static_cast<long long>(first),
                                             static_cast<long long>(held())));
  }
  const llama_memory_t memory = llama_get_memory(context_.get());
  const auto begin = static_cast<llama_pos>(first), end = static_cast<llama_pos>(first + count);
  if (!llama_memory_can_shift(memory) || !llama_memory_seq_rm(memory, sequence_, begin, end)) {
    return Status::NotSupported("the model's cache cannot forget a part of its tokens");
  }
  llama_memory_seq_add(memory, sequence_, end, -1, begin - end);
  held() -= count;
  return Status::Ok();
}

Result<std::vector<std::byte>> LlamaRunner::SaveState() {
  const LogCapture log;
  StateHeader header;
  header.vocab_size = static_cast<uint32_t>(info_.vocab_size);
  header.num_layers = info_.layers.size();
  header.num_tokens = static_cast<uint64_t>(held());
  header.payload_bytes = llama_state_seq_get_size(context_.get(), sequence_);
  std::vector<std::byte> state(sizeof(header) + header.payload_bytes);
  std::memcpy(state.data(), &header, sizeof(header));
  auto* payload = reinterpret_cast<uint8_t*>(state.data() + sizeof(header));
  if (llama_state_seq_get_data(context_.get(), payload, header.payload_bytes, sequence_) == header.payload_bytes) {
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
  if (llama_state_seq_set_data(context_.get(), payload, header.payload_bytes, sequence_) == 0) {
    return Status::Corruption("the saved state does not decode: " + log.Reason());
  }
  if (device_ && !device_->errors().last().ok()) {
    const Status status = device_->errors().last();
    device_->errors().Clear();
    KVANT_TRY(Truncate(0));
    return status;
  }
  held() = static_cast<int64_t>(header.num_tokens);
  logits_.clear();
  return Status::Ok();
}

CacheUse LlamaRunner::cache_use() const {
  if (!device_) {
    const int64_t rows = std::accumulate(held_.begin(), held_.end(), int64_t{0});
    return StockUse(choice_, info_.layers, rows, llama_n_ctx(context_.get()));
  }
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

Result<DeviceInfo> Runner::FindDevice(std::string_view device) {
  const Result<ggml_backend_dev_t> found = InnerDevice(device);
  if (!found.ok()) return found.status();
  size_t free = 0, total = 0;
  ggml_backend_dev_memory(*found, &free, &total);
  return DeviceInfo{.name = ggml_backend_dev_name(*found),
                    .description = ggml_backend_dev_description(*found),
                    .free_bytes = static_cast<int64_t>(free),
                    .total_bytes = static_cast<int64_t>(total)};
}

Result<ModelInfo> Runner::Inspect(const std::string& model_path) {
  InitLlama();
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

  const Result<ggml_backend_dev_t> inner = InnerDeviceOf(options);
  if (!inner.ok()) return inner.status();
  std::unique_ptr<ProxyDevice> device;
  if (choice->scheme) {
    Result<std::unique_ptr<ProxyDevice>> made =
        ProxyDevice::Create(*inner, {.scheme = *choice->scheme,
                                     .memory_limit_bytes = options.memory_limit_bytes,
                                     .maybe_calibration = options.maybe_calibration});
    if (!made.ok()) return made.status();
    device = std::move(made).value();
  }
  Result<Model> model = LoadModel(options.model_path, device ? device->device() : *inner, Load::kAll);
  if (!model.ok()) return model.status();
  Complete(&info.value(), **model);
  auto runner = std::make_unique<LlamaRunner>(options, std::move(choice).value(), std::move(info).value(),
                                              std::move(device), std::move(model).value());
  KVANT_TRY(runner->MakeContext());
  return std::unique_ptr<Runner>(std::move(runner));
}

}  // namespace kvant
