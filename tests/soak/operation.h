// The random load: operations on the sequences of a runner, as a server, speculative decoding and long chats make them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/dice.h"

namespace kvant {

enum class OperationKind {
  kSpeculate,    ///< feed 1..8 tokens to one sequence
  kChunk,        ///< 9..64
  kPrefill,      ///< 65..1500, at most half of the context
  kTogether,     ///< 1..40 steps of one token for all sequences
  kRollBack,     ///< forget the last 1..8 tokens, as after rejected speculation
  kCut,          ///< forget any number of them
  kEmpty,        ///< forget all
  kShift,        ///< keep the first 4..64 tokens, forget a stretch behind them
  kSave,         ///< keep a state for later
  kLoad,         ///< the state of this sequence that was kept last, after other work
  kSaveAndLoad,  ///< both at once
};
constexpr int kOperationKinds = 11;

struct Operation {
  OperationKind kind = OperationKind::kSpeculate;
  int sequence = 0;
  int64_t first = 0;  ///< tokens that stay as they are: kRollBack .. kShift
  int64_t count = 0;  ///< tokens forgotten: kShift; steps: kTogether
  /// Fed to `sequence`; [count, sequences] for kTogether. What changes the cache only feeds one, for logits to compare.
  std::vector<int> tokens;
};

/// "speculate", "chunk", ...
const char* Name(OperationKind kind);
/// "shift sequence 1: keep 17, forget 230, feed 1"
std::string Describe(const Operation& operation);

/// Draws operations that a seed and the answers so far determine. Tokens are those of a text: each sequence reads on where it
/// is, or, one time in four, elsewhere.
class OperationSource {
 public:
  /// REQUIRES: !text.empty(), sequences >= 1
  OperationSource(uint64_t seed, std::vector<int> text, int sequences, int context);
  /// `held`: tokens of each sequence now, [sequences].
  Operation Next(const std::vector<int64_t>& held);

 private:
  struct Reader {
    size_t at = 0;        ///< next token of the text
    size_t saved_at = 0;  ///< where it was when the state was saved
    bool has_saved = false;
    void GoBack(size_t tokens, size_t length) { at = (at + length - tokens % length) % length; }
  };
  OperationKind DrawKind();
  size_t Between(size_t low, size_t high) { return low + dice_.Below(high - low + 1); }
  std::vector<int> Read(int sequence, size_t count);
  Operation Fill(OperationKind kind, int sequence, const std::vector<int64_t>& held);
  void FillTogether(Operation* operation);
  void FillShift(Operation* operation, int64_t held);
  bool Fits(const Operation& operation, const std::vector<int64_t>& held) const;

  Dice dice_;
  const std::vector<int> text_;
  const int64_t context_;
  std::vector<Reader> readers_;
};

}  // namespace kvant
