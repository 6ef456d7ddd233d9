// The contract of a codec: six verbs over blocks of 64 tokens, and the row that registers it.
//
// Life of a block. Tokens arrive in an fp16 *open page*; a full page older than the recent window is *sealed*:
// each block (one KV head's K or V, `tokens` x `dim`) is encoded once and never changes again.
//
//   verb           used for   reads -> writes
//   encode         K, V       rows [tokens, dim] -> block
//   decode         K, V       block -> rows [tokens, dim]; the definition of what a block means
//   prepare_query  K          queries [heads, dim] -> prepared query (opaque bytes), once per basis
//   score          K          block, prepared query -> scores [heads, kTokensPerPage]
//   accumulate     V          block, weights [heads, kTokensPerPage] -> adds to accumulators [heads, acc_dim]
//   finish         V          accumulators [heads, acc_dim] -> output [heads, dim], once per basis
//
// Rules for every implementation of a verb:
// - No allocation except on the stack (at most 64 KiB), no I/O, no global state; thread-safe on distinct outputs.
// - Blocks, bases, prepared queries and all float arrays are 64-byte aligned. `heads` is 1..kMaxHeads; arrays of
//   scores and weights have a stride of kTokensPerPage floats, accumulators of acc_dim, queries of dim.
// - encode writes every byte of the block, padding included, and is deterministic: same rows, basis and SIMD target,
//   same bytes. Across targets the bytes are equal, or codes differ by one step in at most
//   CodecInfo::max_code_mismatch of the values (codecs that sum floats before they round).
// - encode gets finite rows (the cache checks that); it returns InvalidArgument when a derived value such as a scale
//   does not fit fp16.
// - decode validates what it reads where a wrong byte could lead outside the block and returns Corruption; it never
//   reads or writes out of bounds whatever the bytes are. The other verbs get blocks that this process encoded or
//   that decode accepted. All floats they produce from such blocks are finite.
// - score of head h, token t = q_h . row_t over decode()'s rows (no softmax scale, no mask, no logit map: the attention
//   multiplies q by the softmax scale before prepare_query and does the rest after score), and accumulate + finish of head h = sum_t weights[h, t] row_t, both
//   within kMaxVerbError of the result's RMS; scores of codecs whose own error exceeds kCoarseCodec within
//   kMaxCoarseScoreError. Weights are >= 0, may all be 0, and are those of a softmax whose largest weight so far is
//   about 1: small ones may be coarse (fixed_point.h).
// - `tokens` of a block is BlockShape::tokens; scores of rows >= tokens are not written and weights not read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/float16.h"
#include "codec/device_format.h"
#include "kvant/status.h"
#include "kvant/token_class.h"
#include "page/block_layout.h"
#include "page/read_ahead.h"
#include "page/rope.h"

namespace kvant {

/// Most query heads that share one KV head in one call of a verb.
constexpr int kMaxHeads = 16;

/// Errors that the verbs may add to what encoding lost, relative to the RMS of the result.
constexpr double kMaxVerbError = 2e-3;
/// A codec that loses more than this may take queries at 8 bits.
constexpr double kCoarseCodec = 0.25;
constexpr double kMaxCoarseScoreError = 2e-2;

enum class Side : uint8_t { kKey, kValue };

/// What belongs to a block beside its bytes. Not owned.
struct BlockContext {
  const std::byte* basis = nullptr;  ///< of the block's segment; null: the codec's built-in default
  ReadAhead* maybe_ahead = nullptr;  ///< score and accumulate: to prefetch from, a few lines per step of their loops
  const TokenClass* maybe_token_classes = nullptr;  ///< [tokens], encode only; null: all ordinary

  // Set for keys of codecs with keys_before_rope, else null. prepare_query, which serves many blocks, gets no positions.
  const int32_t* positions = nullptr;  ///< [tokens] of the block's rows, each below kMaxPositions
  const Rope* rope = nullptr;          ///< how the model turned the rows
};

/// What a basis is fitted to: rows of one KV head, or of all heads with CodecState::basis_per_layer. Keys of codecs
/// with keys_before_rope are given, and the metric holds, as they were before RoPE.
struct FitData {
  /// [tokens, dim]; a calibration gives whole pages of 64 consecutive tokens, one after the other, online fitting what
  /// the sequence has.
  const float* rows = nullptr;
  size_t tokens = 0;
  /// The rest is known when a calibration fits, not when a sequence does.
  const float* maybe_weights = nullptr;  ///< [tokens]: what an error in this row counts, mean 1
  const double* maybe_metric = nullptr;  ///< [dim, dim], symmetric: an error e of a row costs e^T metric e
};

/// Which block a codec is configured for.
struct BlockShape {
  Side side = Side::kKey;
  int dim = 0;                  ///< head size: values of one row
  int tokens = kTokensPerPage;  ///< rows; other than 64 only for `raw`, which also holds sink tokens
  int layer = 0;                ///< for codecs that treat the first layers differently
  int num_layers = 1;
};

/// One option of a codec as it stands in scheme text: `kivi:bits=2,group=32`.
struct OptionInfo {
  std::string_view name;
  std::string_view default_value;
  std::string_view accepted;  ///< for people and error messages: "2, 4", "0.5..8 in steps of 0.125"
  std::string_view summary;
  bool decides_basis = true;  ///< false: a calibrated basis serves all values of it
  bool is_preset = false;     ///< but at its default value: options that are not given take values of its own
};

/// Options as given: name and value, in the order of the text. A value without a name ("decoquant:4") has the name
/// of the codec's first option.
using CodecOptions = std::vector<std::pair<std::string, std::string>>;

/// What the attention makes of the scores of a codec's keys, after the softmax scale and before anything else:
/// gain * score + shift. For codecs whose errors change the sizes of scores; `score` itself stays q . row.
struct LogitMap {
  float gain = 1.0f;
  float shift = 0.0f;
  bool is_identity() const { return gain == 1.0f && shift == 0.0f; }
};

/// A codec configured for one layer and side: parameters, byte layout, tables. Immutable, so thread-safe; each codec
/// derives its own. Owned by the cache or by a test.
class CodecState {
 public:
  explicit CodecState(const BlockShape& s) : shape(s) {}
  virtual ~CodecState() = default;

  BlockShape shape;
  BlockLayout layout;              ///< streams of a block of `shape`
  size_t prepared_head_bytes = 0;  ///< K: bytes of a prepared query per head (multiple of 64)
  int acc_dim = 0;                 ///< V: floats of an accumulator per head (multiple of 16)
  LogitMap logit_map = {};         ///< K: decoding steps only, not prefill (DESIGN.md, stop 4)

  /// A *basis* is data fitted to the rows of one KV head: online to a segment (DecoQuant's small tensor), or once
  /// for the model by a calibration (codebooks). 0: the codec has none.
  size_t basis_bytes = 0;
  /// The basis comes from a calibration; the codec cannot encode without it and is never fitted online.
  bool needs_calibration = false;
  /// Rows a sequence must hold before fit_basis is worth while, sinks included; pages sealed before use the
  /// codec's built-in default (null basis).
  int basis_min_tokens = 0;
  /// A new basis is fitted after this many further tokens, but not before the sequence has doubled since the last fit,
  /// so that a long one has few; 0: the first one stays.
  int basis_refit_tokens = 0;
  /// One basis serves all KV heads of the layer; it is fitted to the rows of all heads, one head after the other.
  bool basis_per_layer = false;
  /// There is no built-in default: pages stay open until a sequence has a basis. So with needs_calibration as well.
  bool needs_basis = false;

  /// Keys are stored as they were before RoPE: encode turns the rows back (BlockContext::positions and rope), decode
  /// gives rows after RoPE as for every codec, score turns on the fly. Moving rows to other positions then changes
  /// no byte of a block. Never set for values.
  bool keys_before_rope = false;
};

/// Nothing can be encoded without a basis.
inline bool NeedsBasis(const CodecState& state) { return state.needs_basis || state.needs_calibration; }

/// One implementation (scalar reference, SIMD, ...) of the verbs. The context's basis is null for codecs without one
/// and for pages sealed before the first fit. A null entry means: use the reference's.
struct CodecVerbs {
  Status (*encode)(const CodecState& state, const BlockContext& context, const float* rows, std::byte* block) = nullptr;
  Status (*decode)(const CodecState& state, const BlockContext& context, const std::byte* block, float* rows) = nullptr;
  void (*prepare_query)(const CodecState& state, const BlockContext& context, const float* queries, int heads,
                        std::byte* prepared) = nullptr;
  void (*score)(const CodecState& state, const BlockContext& context, const std::byte* block, const std::byte* prepared,
                int heads, float* scores) = nullptr;
  void (*accumulate)(const CodecState& state, const BlockContext& context, const std::byte* block, const float* weights,
                     int heads, float* acc) = nullptr;
  void (*finish)(const CodecState& state, const BlockContext& context, const float* acc, int heads,
                 float* out) = nullptr;
};

/// What conformance expects of one configuration; bounds are two-sided, a result too good is a bug as well.
struct Expectation {
  std::string_view options;  ///< as in scheme text, for example "bits=2,group=32"; empty: the defaults
  Side side;
  double bits_per_value;  ///< block_bytes * 8 / (64 * 128), everything in the block counted, at dim 128
  double min_error;       ///< relative Frobenius error ||decode - rows|| / ||rows|| on N(0,1) rows at dim 128
  double max_error;
};

/// Options of a codec for keys and for values, as in scheme text.
struct CodecPair {
  std::string_view key_options;
  std::string_view value_options;
};

/// A codec's row in the registry.
struct CodecInfo {
  std::string_view name;
  std::string_view summary;  ///< one line for `kvant codecs`
  std::string_view paper;    ///< citation, or "-"
  bool keys = true;
  bool values = true;
  int recent_tokens = 0;  ///< exact recent window that the method prescribes; scheme text may override it
  std::span<const OptionInfo> options;
  std::span<const Expectation> expectations;
  /// One for each rate that the codec is meant for, most bits first: what tables and plots of all codecs show. Empty:
  /// the defaults.
  std::span<const CodecPair> typical = {};
  /// Share of values whose code may differ by one step between SIMD targets; 0: bytes are equal.
  double max_code_mismatch = 0.0;

  /// Validates options (unknown names are refused before, in MakeCodec) and builds the state.
  Result<std::unique_ptr<CodecState>> (*make)(const BlockShape& shape, const CodecOptions& options) = nullptr;
  /// Fits a basis; data.tokens >= basis_min_tokens less the sink rows, which are left out. Null: the codec has no
  /// basis.
  Status (*fit_basis)(const CodecState& state, const FitData& data, std::byte* basis) = nullptr;
  /// Checks the bytes of a foreign basis (snapshot). Null: the codec has no basis.
  Status (*check_basis)(const CodecState& state, const std::byte* basis) = nullptr;

  /// Row access in place, for codecs whose block can be filled row by row (raw: open pages are its blocks); else null.
  void (*store_row)(const BlockShape& shape, std::byte* block, int token, const F16* row) = nullptr;
  void (*load_row)(const BlockShape& shape, const std::byte* block, int token, F16* row) = nullptr;

  /// How device kernels read a block. NotSupported names what they cannot read. Null: nothing of this codec.
  Result<DeviceFormat> (*device_format)(const CodecState& state) = nullptr;

  CodecVerbs reference;                   ///< complete for the sides it serves; the definition
  const CodecVerbs* (*simd)() = nullptr;  ///< for the best target of this machine; null: none
};

/// A configured codec with its verbs resolved: what the cache and the attention hold.
struct Codec {
  const CodecInfo* info = nullptr;
  std::shared_ptr<const CodecState> state;
  CodecVerbs verbs;

  const BlockShape& shape() const { return state->shape; }
  size_t block_bytes() const { return state->layout.block_bytes(); }
};

/// Which implementation MakeCodec resolves: the best for this machine, or the scalar reference.
enum class Implementation { kBest, kReference };

/// Looks up `name`, checks the option names and shape and configures the codec.
/// Errors: InvalidArgument (unknown codec, option or value, with what is accepted), NotSupported (side, head size).
Result<Codec> MakeCodec(std::string_view name, const CodecOptions& options, const BlockShape& shape,
                        Implementation implementation = Implementation::kBest);

/// The codec of open pages, recent windows and sinks: fp16, with store_row and load_row.
Codec OpenPageCodec(const BlockShape& shape);

/// Splits "bits=2,group=32" or "4,gauge=klt" (the first value may go without a name).
Result<CodecOptions> ParseCodecOptions(const CodecInfo& info, std::string_view text);

/// Helpers for CodecInfo::make. Each returns InvalidArgument that names codec, option, value and what is accepted.
class OptionReader {
 public:
  OptionReader(const CodecInfo& info, const CodecOptions& options) : info_(info), options_(options) {}
  /// The value given, else the default of the table. REQUIRES: `name` is in the table.
  std::string Get(std::string_view name) const;
  /// One of `allowed`.
  Result<int> GetInt(std::string_view name, std::span<const int> allowed) const;
  /// min..max.
  Result<int> GetIntRange(std::string_view name, int min, int max) const;
  /// min..max, a multiple of `step`.
  Result<double> GetNumber(std::string_view name, double min, double max, double step) const;
  /// Index of the value in `allowed`.
  Result<int> GetChoice(std::string_view name, std::span<const std::string_view> allowed) const;
  /// The error for an option that is well-formed but not acceptable here.
  Status Refuse(std::string_view name, std::string_view why) const;

 private:
  const CodecInfo& info_;
  const CodecOptions& options_;
};

}  // namespace kvant
