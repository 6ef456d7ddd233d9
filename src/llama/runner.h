// The one door to models: open a GGUF with a cache scheme, feed tokens, read logits. No libllama type in here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/kv_store.h"
#include "calibrate/row_watcher.h"
#include "kvant/calibration.h"
#include "kvant/scheme.h"
#include "kvant/shape.h"
#include "kvant/status.h"

namespace kvant {

/// What a block of a model remembers of the tokens before.
enum class BlockMemory {
  kAll,          ///< K and V of all tokens
  kWindow,       ///< K and V of the last ModelInfo::window tokens
  kLatent,       ///< one latent row per token for K and V together (MLA)
  kState,        ///< a state of fixed size (recurrent: Mamba, RWKV, short convolutions)
  kAllAndState,  ///< both, side by side
  kNothing,      ///< a block without attention
};

struct BlockInfo {
  BlockMemory memory = BlockMemory::kAll;
  int layer = -1;  ///< index into ModelInfo::layers; -1: none
};

struct ModelInfo {
  std::string path;
  std::string architecture;  ///< "llama"
  std::string description;   ///< as libllama prints it
  int64_t parameters = 0;
  int64_t file_bytes = 0;
  int vocab_size = 0;
  int context_train = 0;
  int q_heads = 0;
  std::vector<LayerShape> layers;  ///< attention layers with a cache, in order
  std::vector<BlockInfo> blocks;   ///< all blocks, in order
  int window = 0;                  ///< tokens; 0: no block has a sliding window
  bool has_chat_template = false;
};

/// What the cache of a session costs. A stock llama.cpp cache is allocated for the whole context at once: its footprint
/// counts the rows in use, all under "codes", its memory_bytes the whole.
struct CacheUse {
  Footprint footprint;
  size_t memory_bytes = 0;  ///< held from the system for K and V
  size_t fp16_bytes = 0;    ///< the same rows at 16 bits
  double seal_seconds = 0;  ///< time spent encoding so far, fitting bases included
  /// Where the codecs' bases come from: "calibrated", "fitted to the prompt", "K calibrated, V fitted to the prompt";
  /// empty: they have none.
  std::string bases;
};

struct RunnerOptions {
  std::string model_path;
  /// A kvant scheme ("kv4", "k=int:4 v=int:2"), a plan file ("plan.json"), "f16" = "llama:f16", or a stock cache type "llama:q8_0",
  /// "llama:q8_0/q4_0" (K/V).
  std::string cache = "f16";
  /// Where the model runs and its cache lies: "auto" (a CUDA device where libllama and kvant have CUDA, else the CPU), "cpu", "cuda", or
  /// the name of a device ("CUDA1").
  std::string device = "auto";
  int context = 4096;  ///< tokens; at most ModelInfo::context_train
  int batch = 512;     ///< tokens per chunk of prefill (n_ubatch)
  int threads = 2;
  int sequences = 1;              ///< that the context has room for, `context` tokens each
  size_t memory_limit_bytes = 0;  ///< of the cache; 0: none
  /// Bases for the codecs of a kvant scheme; must be of this model. Null: codecs fit their own where they can.
  std::shared_ptr<const Calibration> maybe_calibration = nullptr;
  RowWatcher* maybe_watcher = nullptr;  ///< sees the rows of a stock cache ("f16"), which it must outlive
};

/// Where models run: "CPU", "CUDA0", and what the maker calls it ("NVIDIA H200").
struct DeviceInfo {
  std::string name;
  std::string description;
  int64_t free_bytes = 0;  ///< of its memory
  int64_t total_bytes = 0;
};

/// How much is logged; each level has those before it.
enum class LogLevel { kNone, kError, kWarn, kInfo, kDebug };
/// Gets a whole line, without its end. May be called from any thread, one line at a time.
using LogSink = std::function<void(LogLevel level, std::string_view line)>;

/// A model with one context. Tokens, logits and states are those of one of its sequences, the first unless UseSequence says
/// otherwise. Not thread-safe.
class Runner {
 public:
  /// Where libllama's and ggml's log goes, for the whole process; nowhere before this is called.
  static void SetLog(LogSink sink);
  /// What RunnerOptions::device means here. Errors: NotFound, saying what there is.
  static Result<DeviceInfo> FindDevice(std::string_view device);
  /// Reads shapes and metadata only.
  static Result<ModelInfo> Inspect(const std::string& model_path);
  /// What tells the model's weights from others, see docs/calibration.md: 32 hexadecimal digits. Reads a sample of each
  /// tensor, so it takes a moment whatever the model's size. Errors: those of reading the file.
  static Result<std::string> HashModel(const std::string& model_path);
  /// The scheme that `cache` names: scheme text, or the path of a plan (kvant/plan.h), which must be for this model.
  /// Errors: those of Scheme::Parse, Plan::Load and Plan::CheckModel.
  static Result<Scheme> ReadScheme(const std::string& model_path, std::string_view cache);
  /// Shows the output projections of all layers to `watcher` (kOutput). Errors: NotSupported when the model has none under
  /// the usual name.
  static Status ShowOutputWeights(const std::string& model_path, RowWatcher* watcher);
  /// Errors in one line: file missing, not a GGUF, unsupported architecture or head size, scheme refused, ...
  static Result<std::unique_ptr<Runner>> Open(const RunnerOptions& options);
  virtual ~Runner() = default;

  virtual const ModelInfo& info() const = 0;
  /// The model's own marks ("<|user|>") in the text become their tokens.
  virtual std::vector<int> Tokenize(std::string_view text, bool add_bos) const = 0;
  virtual std::string Detokenize(int token) const = 0;
  virtual bool IsEndOfGeneration(int token) const = 0;
  /// The model's chat template around one user message. NotSupported when it has none.
  virtual Result<std::string> ApplyChatTemplate(std::string_view user_message) const = 0;

  /// Feeds tokens after those already held; `all_logits`: keep the logits of each of them, else of the last only.
  /// Keeps [tokens, vocab_size] floats with `all_logits`. After an error none of the tokens is held.
  /// Errors: InvalidArgument (context full, with both numbers), OutOfMemory (memory limit).
  virtual Status Decode(std::span<const int> tokens, bool all_logits) = 0;
  /// Logits [vocab_size] of token i of the last Decode; i = -1: its last token. REQUIRES: they were kept; without
  /// `all_logits` only the last token's are.
  virtual std::span<const float> Logits(int i) const = 0;
  virtual int64_t num_tokens() const = 0;

  /// From here on everything is about this sequence; logits are gone. REQUIRES: 0 <= sequence < options.sequences
  virtual void UseSequence(int sequence) = 0;
  /// Feeds one token to each of the sequences 0 .. tokens.size() - 1 in one step; Logits(s) is sequence s's. The sequence
  /// in use stays. Errors: those of Decode.
  virtual Status DecodeTogether(std::span<const int> tokens) = 0;

  /// Forgets tokens from `num_tokens` on.
  virtual Status Truncate(int64_t num_tokens) = 0;
  /// Context shift: forgets the tokens first .. first + count - 1 and moves those behind them up to their place. What these
  /// took from the forgotten ones stays in them. Errors: InvalidArgument (not that many tokens), NotSupported (a cache whose
  /// positions cannot move).
  virtual Status Shift(int64_t first, int64_t count) = 0;
  virtual Result<std::vector<std::byte>> SaveState() = 0;
  virtual Status LoadState(std::span<const std::byte> state) = 0;

  virtual CacheUse cache_use() const = 0;
};

}  // namespace kvant
